"""torch, if it is the version that the engine was built against."""

from penstock import _built_with


def _import_torch():
    if not _built_with.TORCH:
        raise ImportError("this penstock was built without torch: install torch, then build penstock again")
    try:
        import torch
    except ImportError as error:
        raise ImportError(f"penstock's engine needs torch {_built_with.TORCH}: pip install torch=={_built_with.TORCH}") from error
    installed = torch.__version__.partition("+")[0]
    if installed != _built_with.TORCH:
        raise ImportError(
            f"penstock's engine was built against torch {_built_with.TORCH}, and torch {installed} is installed: "
            "build penstock again (pip install --no-build-isolation .), or install that torch"
        )
    return torch


torch = _import_torch()
