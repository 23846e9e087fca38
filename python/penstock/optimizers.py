"""penstock's own optimizers: to the numbers of torch.optim, with fused kernels, and taken up by checkpoints as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Tuple, Union

LearningRate = Union[float, Callable[[int], float]]


@dataclass(frozen=True)
class AdamW:
    """AdamW (arXiv 1711.05101). `lr` is a number, or a function from the step, counted from 0, to one.

    `weight_decay` acts on parameters of two dimensions or more: biases and norms are left alone.
    """

    lr: LearningRate = 1e-3
    betas: Tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1

    def _settings(self):
        return {"optimizer": "adamw", "beta1": self.betas[0], "beta2": self.betas[1], "epsilon": self.eps, "weight_decay": self.weight_decay}


@dataclass(frozen=True)
class SGD:
    """SGD with momentum. `lr` is a number, or a function from the step, counted from 0, to one.

    `weight_decay` is added to the gradient of parameters of two dimensions or more.
    """

    lr: LearningRate = 1e-2
    momentum: float = 0.0
    weight_decay: float = 0.0

    def _settings(self):
        return {"optimizer": "sgd", "momentum": self.momentum, "weight_decay": self.weight_decay}
