"""What a network promises, and what its layers cost."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

from penstock import _core
from penstock._checked_torch import torch
from penstock import _engine  # behind the check
from penstock._calls import LossFunction
from penstock._given import Layers, arguments_of, devices_of, named_layers, part_ways, resolved_skips, resolved_ties, shared_parameters
from penstock.errors import BadInput
from penstock.optimizers import AdamW


def _squares(outputs, *_):
    """A loss for those who only measure."""
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return sum(output.float().square().sum() for output in outputs if output is not None), 1


def _network(layers: Layers, loss: Optional[Callable], ties, skips):
    named = named_layers(layers)
    shared = shared_parameters(named)
    if shared:
        # All at once, so that what is one stays one until the copies' part ways; the caller's modules are left alone.
        modules = copy.deepcopy([layer for _, layer, is_factory in named if not is_factory])
        named = [(name, layer if is_factory else modules.pop(0), is_factory) for name, layer, is_factory in named]
        part_ways(named, shared)
    return named, LossFunction(loss or _squares), resolved_ties(ties, named) + shared, resolved_skips(skips, named)


@dataclass(frozen=True)
class AuditReport:
    """What `audit` found. Prints as a table."""

    holds: bool  #: whether the network has the same bits under any cut and schedule, and keeps no more memory from step to step
    layers: List[Dict[str, Any]]  #: layer, name, is_random, works_in_place, changes_dtype, buffers, shared, leak_bytes, refused, differences
    text: str

    def __str__(self) -> str:
        return self.text


def audit(
    layers: Layers,
    x: Any,
    y: Any = None,
    *,
    loss: Optional[Callable] = None,
    microbatches: int = 3,
    seed: int = 0,
    ties: Iterable[Tuple[str, str]] = (),
    skips: Iterable[Sequence[Any]] = (),
) -> AuditReport:
    """Runs a few small microbatches through copies of the layers in every way that a pipeline may, and compares bits.

    x, y: a minibatch of at least `microbatches` samples; loss: as a Pipeline's. Takes seconds; nothing is updated.
    """
    network = _network(layers, loss, ties, skips)
    targets = arguments_of(y, "y")
    return AuditReport(*_reordered(_engine.audit(*network, arguments_of(x, "x"), targets, microbatches, seed)))


def _reordered(found):
    holds, text, layers = found
    return holds, layers, text


def _repeated(tensor, samples: int):
    """So many samples, those of the example again and again."""
    if tensor is None or tensor.dim() == 0:
        return tensor
    return tensor[torch.arange(samples) % tensor.shape[0]]


def profile(
    layers: Layers,
    x: Any,
    y: Any = None,
    *,
    sizes: Sequence[int],
    loss: Optional[Callable] = None,
    ranks: int = 1,
    devices: Sequence[Any] = (),
    threads_per_rank: int = 1,
    optimizer: Any = AdamW(),
    precision: str = "fp32",
    seed: int = 0,
    budget: float = 0.3,
    ties: Iterable[Tuple[str, str]] = (),
    skips: Iterable[Sequence[Any]] = (),
    model: Optional[Dict[str, str]] = None,
) -> _core.LayerCosts:
    """Measures each layer as a run would meet it: times, bytes, the update, and the links between ranks.

    x, y: an example of at least one sample, repeated to each size. sizes: of microbatches, in samples, ascending. ranks: so many
    threads measure at once and contend as in the run. budget: seconds for each layer and size. optimizer: `AdamW` or `SGD` of this
    package, whose state and update are counted, or None. The layers are copied, not trained.
    """
    given = {
        "ranks": ranks, "devices": devices_of(devices), "threads_per_rank": threads_per_rank,
        "precision": precision, "seed": seed, "budget_ms": budget * 1000, "updates": optimizer is not None,
    }
    if optimizer is not None:
        if not hasattr(optimizer, "_settings"):
            raise BadInput("an optimizer of another library; expected ps.AdamW, ps.SGD or None; give the one that is nearest")
        given.update(optimizer._settings())
    inputs, targets = arguments_of(x, "x"), arguments_of(y, "y")

    def microbatch(samples):
        def of_size(arguments):
            return [(tensor if dimension is None else _repeated(tensor, samples), dimension) for tensor, dimension in arguments]

        return of_size(inputs), of_size(targets)

    measured = json.loads(_engine.profile(*_network(layers, loss, ties, skips), list(sizes), microbatch, given))
    measured["model"] = dict(model or {})
    return _core.LayerCosts(measured)
