"""What penstock raises. Each message is one line: what was got, what was expected, what to do."""


class Error(Exception):
    """Whatever penstock raises for what a caller or the world can get wrong."""


class BadInput(Error, ValueError):
    """A setting, file or argument is not usable; nothing was started or written."""


class RunFailed(Error, RuntimeError):
    """The input was good, the run was not: a layer that raised, a full disk, a lost peer.

    Where a layer, loss or optimizer written in Python raised, `__cause__` is its exception, with its traceback.
    """
