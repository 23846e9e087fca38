"""What the engine calls: the user's loss, and optimizers of torch."""

from __future__ import annotations

import warnings
from typing import Any, Callable, Dict, List, Tuple

from penstock._checked_torch import torch
from penstock._given import one
from penstock.errors import BadInput


def single(tensors: Tuple[Any, ...]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def samples_of(outputs, targets) -> float:
    """Of a microbatch, by the first dimension of its targets, or else of its outputs."""
    for tensor in (*targets, *outputs):
        if tensor is not None and tensor.dim() > 0:
            return float(tensor.shape[0])
    return 1.0


class LossFunction:
    """The user's loss as the engine calls it: from tuples to a sum and its weight."""

    def __init__(self, function: Callable):
        self.function = function
        self.weight = "not known before the first step"

    def __call__(self, outputs, targets):
        returned = self.function(single(outputs), single(targets)) if targets else self.function(single(outputs))
        if isinstance(returned, torch.Tensor):
            if returned.numel() != 1:
                raise BadInput(
                    f"the loss returned a tensor of shape {tuple(returned.shape)}; expected one number, or (sum, weight); "
                    "take its mean, or its sum with the number of samples"
                )
            self.weight = "inferred: the samples of each microbatch, whose mean the loss returns"
            weight = samples_of(outputs, targets)
            total = returned * weight
        elif isinstance(returned, (tuple, list)) and len(returned) == 2 and isinstance(returned[0], torch.Tensor):
            self.weight = "returned by the loss"
            total, weight = returned[0], float(returned[1])
        else:
            raise BadInput(f"the loss returned {one(returned)}; expected a tensor of one number, or (sum, weight); return one of these")
        first = next((output for output in outputs if output is not None), None)
        if first is not None and total.device != first.device:
            raise BadInput(
                f"the loss is on {total.device} and the outputs on {first.device}; expected both on one device; "
                "let the loss move what it makes there"
            )
        return total, weight


class TorchOptimizer:
    """An optimizer of torch.optim for the parameters of one rank, as the engine calls it, and its scheduler."""

    def __init__(self, names: List[str], parameters: List["torch.Tensor"], make, make_scheduler):
        self.names = {id(parameter): name for name, parameter in zip(names, parameters)}
        self.optimizer = make(parameters)
        if not isinstance(self.optimizer, torch.optim.Optimizer):
            raise BadInput(f"the optimizer's factory returned {one(self.optimizer)}; expected a torch.optim.Optimizer; return one")
        given = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
        if given != set(self.names):
            raise BadInput("an optimizer of other parameters than its rank's; expected all that it was given; pass on the list")
        self.scheduler = make_scheduler(self.optimizer) if make_scheduler else None

    def _parameters(self):
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def update(self):
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()

    def state(self):
        listed = []
        for parameter in self._parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, (bool, int, float)):
                    value = torch.tensor(value)
                if isinstance(value, torch.Tensor):
                    listed.append((f"{key}.{self.names[id(parameter)]}", value.detach()))
        return listed

    def resume(self, state, updates):
        by_name: Dict[str, Dict[str, Any]] = {}
        for name, tensor in state:
            key, _, parameter = name.partition(".")
            by_name.setdefault(parameter, {})[key] = tensor
        wanted = self.optimizer.state_dict()
        wanted["state"] = {
            index: by_name[self.names[id(parameter)]]
            for index, parameter in enumerate(self._parameters())
            if self.names[id(parameter)] in by_name
        }
        self.optimizer.load_state_dict(wanted)
        if self.scheduler is not None:
            self._advance(updates)

    def _advance(self, updates):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the scheduler steps before the optimizer
            while self.scheduler.last_epoch < updates:
                self.scheduler.step()
