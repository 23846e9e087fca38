"""The engine: any list of torch modules, trained over several devices or threads, to the bits of one."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import math
import os
import sys
import weakref
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from penstock import _built_with, _core
from penstock._checked_torch import torch
from penstock import _engine  # behind the check
from penstock._calls import LossFunction, TorchOptimizer, single
from penstock._given import (
    Layers,
    Name,
    arguments_of,
    devices_of,
    index_of,
    named_layers,
    one,
    part_ways,
    resolved_skips,
    resolved_ties,
    shared_parameters,
    whole,
)
from penstock.errors import BadInput
from penstock.optimizers import SGD, AdamW

__all__ = ["Evaluation", "Pipeline", "StepResult", "whole"]

Tensors = Union["torch.Tensor", None, Tuple[Optional["torch.Tensor"], ...]]

# ---- results


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and a.device == b.device and torch.equal(a, b)
    return bool(a == b)


@dataclass(frozen=True, eq=False)
class StepResult:
    """What one training step was like: a value. Equal are those of the same loss, weight, norm and outputs."""

    loss: float  #: mean over the minibatch's weight, before the update
    weight: float  #: of the minibatch: samples, or whatever the loss returned
    losses: List[Tuple[float, float]]  #: by microbatch, (sum, weight)
    gradient_norm: float  #: over all stages, before clipping
    outputs: Tensors  #: of the last layer, joined along the samples; None where not asked for, or not in this process
    skipped: bool  #: float16: the gradient was not finite, and nothing was updated
    peak_bytes: List[int]  #: by rank of this process, the most that it has held, in CPU tensors
    lock_wait_ms: float  #: what all layers together waited for the interpreter's lock before they began
    _timeline: Callable = field(repr=False)

    @property
    def timeline(self) -> _core.Timeline:
        """Who did what from when to when, in ms from the start of the step. Of several processes the first knows all ranks."""
        events, memory = self._timeline()
        return _core.Timeline._from_state(events, memory, "Measured step", "ms")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StepResult):
            return NotImplemented
        names = ("loss", "weight", "losses", "gradient_norm", "skipped", "outputs")
        return all(_same(getattr(self, name), getattr(other, name)) for name in names)

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_timeline": functools.partial(tuple, self._timeline())}


@dataclass(frozen=True)
class Evaluation:
    """The loss of a minibatch without an update."""

    loss: float  #: mean over the weight
    weight: float  #: of the minibatch


# ---- the pipeline

# Those that live: their threads end before the interpreter does.
_pipelines: "weakref.WeakSet[Pipeline]" = weakref.WeakSet()


@atexit.register
def _close_all():
    # What the interpreter has printed before it ends: the other processes hear of it, and do not wait.
    raised = getattr(sys, "last_value", None)
    for pipeline in list(_pipelines):
        pipeline._end(raised, patience_s=10)


# Those that processes share, in the order in which every process makes them.
_shared = itertools.count(1)


def _described(layers, schedule: _core.Schedule, ties, skips, given: Mapping[str, Any]) -> str:
    """What the processes of a pipeline must have alike, a line each."""
    lines = [f"layer {name}" for name, _, _ in layers]
    lines += [f"tie {tie}" for tie in ties] + [f"skip {skip}" for skip in skips]
    lines += [f"{name} {value}" for name, value in sorted(given.items()) if name not in ("devices", "make_optimizer")]
    lines += [f"optimizer of torch: {'make_optimizer' in given}", f"schedule {schedule!r}"]
    return "\n".join([*lines, *schedule.to_csv().splitlines()])


def _schedule_of(schedule, plan, ranks, microbatches, stages_per_rank) -> _core.Schedule:
    if plan is not None:
        if not isinstance(plan, _core.Plan):
            raise BadInput(f"the plan is {one(plan)}; expected a Plan; make one with ps.plan, or read one with ps.Plan.load")
        if schedule is not None or ranks is not None or microbatches is not None:
            raise BadInput("a plan together with `schedule`, `ranks` or `microbatches`; expected one of the two; leave the others out")
        return plan.to_schedule()
    if isinstance(schedule, _core.Schedule):
        for what, asked, found in (("ranks", ranks, schedule.ranks), ("microbatches", microbatches, schedule.microbatches)):
            if asked is not None and asked != found:
                raise BadInput(f"`{what}` is {asked}; expected {found}, as the schedule has them; leave it out")
        return schedule
    if ranks is None and microbatches is None and schedule is None:
        ranks = microbatches = 1
    if ranks is None or microbatches is None:
        raise BadInput("a schedule's name without `ranks` or `microbatches`; expected both; give them")
    return _core.schedule(schedule or "1f1b", ranks=ranks, microbatches=microbatches, stages_per_rank=stages_per_rank)


def _recomputed(recompute, layers) -> List[bool]:
    if recompute is True:
        return [True] * len(layers)
    if not recompute:
        return []
    chosen = {index_of(name, layers, "`recompute`") for name in recompute}
    return [index in chosen for index in range(len(layers))]


def _joined(outputs: Sequence[Optional["torch.Tensor"]]) -> Tensors:
    return single(tuple(outputs)) if outputs else None


class Pipeline:
    """A network at work on several ranks, each with its part of the layers.

    The ranks are threads of this process; or where torchrun, mpirun or srun has started this script several times, each process has its
    share of them, as numbers of ranks that differ by at most one. All processes then run the same script: they make the same calls with
    the same minibatches, and what ends one ends all.

    layers: a list, or a dict from names to layers, of `torch.nn.Module`s, or of functions without arguments that make one; these
        are called only on the rank that owns the layer, so that the model never exists whole. A layer takes the tensors that the
        one before it returned as positional arguments, and returns a tensor, None, or a tuple of these. A module is used as it is,
        not copied: its weights are those that are trained.
    loss: a function of the last layer's output and the target `y`. Returns (sum, weight), the sum over the microbatch and the
        number of samples or tokens in it, or a mean over the microbatch's samples.
    schedule, ranks, microbatches: a `Schedule`, or a published one's name with its sizes; or
    plan: a `Plan`, which says these, the cut and what is recomputed.
    optimizer: `AdamW(...)` or `SGD(...)`, or a function from a list of parameters to an optimizer of torch.optim, called once on
        each rank with what that rank updates. A learning-rate schedule of torch is made by `scheduler`, a function of the optimizer.
    clip: the largest norm of the gradient over all stages; 0: none.
    cut: for each stage the index of its first layer; by default as equal numbers of layers as possible.
    devices: of the ranks in turn: "cpu", "cuda:0". By default all on the host.
    seed: of layers that factories make and of random layers: dropout draws from it, not from torch's global generator.
    ties: pairs ("layer.parameter", "layer.parameter"), owner and copy, that are one parameter. Parameters that are one object in two
        layers are tied without being named; the copy gets a tensor of its own, which is kept equal.
    skips: (from, to) or (from, to, output): what layer `from`, or "input", returns is given to layer `to` as a further argument.
    recompute: True, or the layers whose forward is run again for the backward.
    precision: "fp32", "bf16" or "fp16", of the layers; weights stay as they are.
    processes: False: threads, whatever the environment says.
    Others by name: threads_per_rank (1; 0 divides the cores), offload, boundary_dtype ("same", "bf16"), post_validation, check_finite,
        memory_limit (bytes of each rank), shard_optimizer.

    The numbers are those of one rank, to the bit, whatever the cut and the schedule, where threads_per_rank is 1.
    One call at a time: another thread's is refused meanwhile. After an error from a step the pipeline is stopped for good.
    Raises BadInput where what it is given does not fit, RunFailed where a layer raises.
    """

    def __init__(
        self,
        layers: Layers,
        loss: Callable,
        *,
        schedule: Union[str, _core.Schedule, None] = None,
        plan: Optional[_core.Plan] = None,
        ranks: Optional[int] = None,
        microbatches: Optional[int] = None,
        stages_per_rank: Optional[int] = None,
        optimizer: Any = AdamW(),
        scheduler: Optional[Callable] = None,
        clip: float = 0.0,
        cut: Optional[Sequence[int]] = None,
        devices: Sequence[Any] = (),
        seed: int = 0,
        ties: Iterable[Tuple[str, str]] = (),
        skips: Iterable[Sequence[Any]] = (),
        recompute: Any = None,
        precision: str = "fp32",
        processes: Optional[bool] = None,
        **settings: Any,
    ):
        self._engine = None
        self._layers = named_layers(layers)
        if not callable(loss):
            raise BadInput(f"the loss is {one(loss)}; expected a function of output and target; give one")
        self._schedule = _schedule_of(schedule, plan, ranks, microbatches, stages_per_rank)
        self._loss = LossFunction(loss)
        self._metadata: Optional[str] = None
        given = _known_settings(settings)
        given.update(clip=float(clip), seed=int(seed), precision=str(precision))
        if not 0 <= given["clip"] < math.inf:
            raise BadInput(f"`clip` is {clip}; expected a norm of 0 or more; correct it")
        if not 0 <= given["seed"] < 1 << 64:
            raise BadInput(f"`seed` is {seed}; expected 0 to 2**64 - 1; correct it")
        given["recompute"] = _recomputed(recompute, self._layers)
        if cut is not None:
            given["cut"] = [int(first) for first in cut]
        if plan is not None:
            self._take_plan(plan, given, cut, recompute)
        given["devices"] = devices_of(devices)
        self._take_optimizer(optimizer, scheduler, given)
        shared = shared_parameters(self._layers)
        part_ways(self._layers, shared)
        self._ties = resolved_ties(ties, self._layers) + shared
        resolved = resolved_skips(skips, self._layers)
        if processes is not False and _engine.shares_pipelines():
            given["description"] = _described(self._layers, self._schedule, self._ties, resolved, given)
            given["pipeline_number"] = next(_shared)
        self._engine = _engine.Engine(self._layers, self._loss, self._schedule.to_csv(), self._ties, resolved, given)
        _pipelines.add(self)

    def _take_plan(self, plan, given, cut, recompute):
        if cut is not None or recompute is not None:
            raise BadInput("a plan together with `cut` or `recompute`; expected one of the two; leave the others out")
        if plan.layers != len(self._layers):
            raise BadInput(f"a plan for {plan.layers} layers and {len(self._layers)} layers; expected as many; plan for these")
        given.update(cut=plan.cut, recompute=plan.recomputed_layers, replicas=plan.replicas)
        if plan.threads_per_rank:
            given.setdefault("threads_per_rank", plan.threads_per_rank)

    def _take_optimizer(self, optimizer, scheduler, given):
        self._learning_rate: Union[float, Callable[[int], float]] = 0.0
        if isinstance(optimizer, (AdamW, SGD)):
            if scheduler is not None:
                raise BadInput("a `scheduler` for penstock's optimizer; expected one of torch.optim; let `lr` be a function of the step")
            self._learning_rate = optimizer.lr
            given.update(optimizer._settings())
        elif callable(optimizer) and not isinstance(optimizer, torch.optim.Optimizer):
            given["make_optimizer"] = lambda names, parameters: TorchOptimizer(names, parameters, optimizer, scheduler)
        else:
            raise BadInput(
                f"the optimizer is {one(optimizer)}; expected ps.AdamW, ps.SGD, or a function from parameters to an optimizer of "
                "torch.optim; give `lambda parameters: torch.optim.AdamW(parameters)`"
            )

    # ---- steps

    def step(self, x: Any, y: Any = None, *, lr: Optional[float] = None, outputs: bool = False) -> StepResult:
        """One minibatch, one update.

        x, y: tensors that have the samples in their first dimension, or tuples of them and None; cut into microbatches of sizes that
        differ by at most one (`whole` leaves a tensor as it is). lr: of this update, with penstock's optimizers. outputs: whether
        the result holds the last layer's. Ctrl-C lets the step end, and is raised then.
        """
        rate = self._learning_rate if lr is None else lr
        if callable(rate):
            rate = rate(self.steps)
        rate = float(rate)
        if not 0 <= rate < math.inf:
            raise BadInput(f"the learning rate is {rate}; expected a number of 0 or more; correct it")
        done = self._open().step(arguments_of(x, "x"), arguments_of(y, "y"), rate, bool(outputs))
        return StepResult(
            loss=done.loss,
            weight=done.weight,
            losses=done.losses,
            gradient_norm=done.gradient_norm,
            outputs=_joined(done.outputs()) if outputs else None,
            skipped=done.skipped,
            peak_bytes=done.peak_bytes,
            lock_wait_ms=done.lock_wait_ms,
            _timeline=done.timeline,
        )

    def evaluate(self, x: Any, y: Any = None) -> Evaluation:
        """The loss of a minibatch, in evaluation mode, without an update."""
        total, weight = self._open().evaluate(arguments_of(x, "x"), arguments_of(y, "y"))
        return Evaluation(total / weight if weight else float("nan"), weight)

    def forward(self, x: Any) -> Tensors:
        """The last layer's outputs, in evaluation mode, joined along the samples; None in processes that do not have that layer."""
        return _joined(self._open().forward(arguments_of(x, "x")))

    __call__ = forward

    # ---- weights

    def layer(self, name: Name) -> "torch.nn.Module":
        """A layer's module: of a factory, what it made. Raises BadInput where another process has it."""
        modules = self._open().modules_of(index_of(name, self._layers, "the call"))
        if not modules:
            raise BadInput(f"layer {name}, which another process has; expected one of this process's; ask where `has_layer` says so")
        return modules[0]

    def has_layer(self, name: Name) -> bool:
        """Whether a rank of this process has the layer."""
        return bool(self._open().modules_of(index_of(name, self._layers, "the call")))

    def state_dict(self) -> Dict[str, "torch.Tensor"]:
        """Copies of all weights and buffers on the host, named "layer.parameter": what `torch.nn.Sequential(*layers)` calls them.

        Of several processes each gets those of its own layers; `save` writes all.
        """
        self._open().settle()
        state: Dict[str, "torch.Tensor"] = {}
        for index, (name, _, _) in enumerate(self._layers):
            for module in self._engine.modules_of(index)[:1]:
                for key, tensor in module.state_dict().items():
                    if isinstance(tensor, torch.Tensor):
                        state[f"{name}.{key}"] = tensor.detach().to("cpu", copy=True)
        return state

    def load_state_dict(self, state: Mapping[str, "torch.Tensor"]) -> None:
        """Takes weights and buffers, as `state_dict` names them. The optimizer's state stays. Raises BadInput for other names or shapes.

        Of several processes each takes those of its own layers, and leaves others out.
        """
        self._open().settle()
        names = {name for name, _, _ in self._layers}
        unknown = [key for key in state if key.partition(".")[0] not in names]
        if unknown:
            raise BadInput(f"a state with {unknown[0]!r}; expected names such as {next(iter(self.state_dict()), 'none')!r}; rename them")
        with torch.no_grad():
            for index, (name, _, _) in enumerate(self._layers):
                of_layer = {key[len(name) + 1 :]: tensor for key, tensor in state.items() if key.startswith(name + ".")}
                for module in self._engine.modules_of(index):
                    try:
                        module.load_state_dict(of_layer)
                    except RuntimeError as error:
                        raise BadInput(f"a state that does not fit layer {name}: {' '.join(str(error).split())}") from error
            for owner, owned, copy, copied in self._ties:
                for module in self._engine.modules_of(copy):
                    holders = self._engine.modules_of(owner)
                    name = f"{self._layers[owner][0]}.{owned}"
                    if not holders and name not in state:
                        raise BadInput(f"a state without {name!r}; expected it, as a layer of this process shares it; give it too")
                    module.get_parameter(copied).copy_(holders[0].get_parameter(owned) if holders else state[name])

    def save(self, folder: Union[str, os.PathLike]) -> None:
        """Writes a checkpoint into the folder, whole or not at all: weights, buffers and the optimizer's state, a file a stage.

        It can be loaded on any number of stages; docs/checkpoints.md has the format.
        """
        notes = json.loads(self._metadata) if self._metadata else {"penstock": _built_with.VERSION}
        if "updates" in notes or not self._metadata:
            notes["updates"] = self.steps
        self._open().save(os.fspath(folder), json.dumps(notes))

    def load(self, folder: Union[str, os.PathLike], *, optimizer: bool = True) -> int:
        """Takes the newest whole checkpoint of the folder, or the one that the folder is; returns its step.

        A folder of `penstock train --out` has them too. optimizer: whether its state is taken with the weights.
        """
        step, metadata = self._open().load(os.fspath(folder), optimizer)
        with contextlib.suppress(ValueError):
            if isinstance(json.loads(metadata), dict):
                self._metadata = metadata
        return step

    # ---- what it is

    @property
    def steps(self) -> int:
        """Updates so far, those before a loaded checkpoint among them."""
        return self._open().steps

    @property
    def process(self) -> int:
        """This process's number among those that share the pipeline; 0 where it is the only one."""
        return self._open().process

    @property
    def processes(self) -> int:
        """How many processes share the pipeline."""
        return self._open().processes

    @property
    def schedule(self) -> _core.Schedule:
        """The order of each rank's passes."""
        return self._schedule

    @property
    def cut(self) -> List[int]:
        """For each stage the index of its first layer."""
        return self._open().cut

    @property
    def loss_weight(self) -> str:
        """Where the weight of a microbatch's loss comes from."""
        return self._loss.weight

    def report(self) -> List[Dict[str, Any]]:
        """By stage: stage, rank, first_layer, layers, parameters, busy_share, peak_bytes of its rank, and sent_bytes."""
        return self._open().report()

    def _open(self):
        if self._engine is None or self._engine.closed:
            raise BadInput("a pipeline that was closed; expected one that was not; make a new one")
        return self._engine

    def close(self) -> None:
        """Ends its threads. Happens by itself when it is deleted and when the interpreter ends. The modules keep their weights.

        A call that is on its way in another thread ends at its next layer, with RunFailed.
        """
        if self._engine is not None:
            self._engine.close()

    def _end(self, raised: Optional[BaseException], patience_s: Optional[int] = None) -> None:
        if self._engine is None or self._engine.closed:
            return
        if raised is not None and self._engine.processes > 1:
            said = str(raised).partition("\n")[0]
            reason = f"process {self._engine.process} ended with {type(raised).__name__}{': ' if said else ''}{said}"
            self._engine.abandon(reason, patience_s)
        else:
            self._engine.close(patience_s)

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, _kind: Any, raised: Optional[BaseException], _trace: Any) -> None:
        try:
            self._end(raised)
        except KeyboardInterrupt:
            # A second one, while the first was dealt with: the threads end all the same.
            self._end(raised)
            raise

    def __repr__(self) -> str:
        if self._engine is None or self._engine.closed:
            return "Pipeline(closed)"
        return (
            f"Pipeline({len(self._layers)} layers on {self._schedule.ranks} ranks, {self._schedule!r}, cut {self.cut}, "
            f"{self.steps} steps; the loss's weight: {self.loss_weight})"
        )

    def __reduce__(self):
        raise TypeError("a Pipeline cannot be pickled: save() its weights, and make a new one")


_SETTINGS = {
    "threads_per_rank": int, "offload": bool, "boundary_dtype": str, "post_validation": bool, "check_finite": bool, "memory_limit": int,
    "shard_optimizer": bool, "replicas": int, "gradient_tree": int,
}


def _known_settings(settings: Dict[str, Any]) -> Dict[str, Any]:
    for name, value in settings.items():
        if name not in _SETTINGS:
            raise TypeError(f"Pipeline() got an unexpected keyword argument {name!r}; known are {', '.join(_SETTINGS)}")
        if value is not None:
            settings[name] = _SETTINGS[name](value)
    return {name: value for name, value in settings.items() if value is not None}
