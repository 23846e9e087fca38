"""What users give, checked and as the engine takes it."""

from __future__ import annotations

import collections.abc
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from penstock._checked_torch import torch
from penstock.errors import BadInput

Layers = Union[Sequence[Any], Mapping[str, Any]]
Name = Union[int, str]


@dataclass(frozen=True)
class _Whole:
    tensor: "torch.Tensor"


def whole(tensor: "torch.Tensor") -> _Whole:
    """A part of `x` or `y` that every microbatch gets as it is, such as a mask for all samples."""
    return _Whole(tensor)


def one(value: Any) -> str:
    return f"a {type(value).__name__}"


def arguments_of(value: Any, what: str) -> List[Tuple[Optional["torch.Tensor"], Optional[int]]]:
    """As the engine takes a minibatch: each tensor with the dimension that is cut."""
    if value is None:
        return []
    arguments = []
    for part in value if isinstance(value, (tuple, list)) else (value,):
        if isinstance(part, _Whole):
            arguments.append((part.tensor, None))
        elif part is None or isinstance(part, torch.Tensor):
            arguments.append((part, 0))
        else:
            raise BadInput(f"{what} holds {one(part)}; expected tensors and None; convert it first")
    return arguments


def devices_of(devices: Any) -> List["torch.device"]:
    """Of ranks in turn, each checked to be there."""
    made = []
    for given in [devices] if isinstance(devices, (str, torch.device)) else devices:
        try:
            device = torch.device(given)
        except (RuntimeError, TypeError) as error:
            raise BadInput(f"`devices` holds {given!r}; expected such as 'cpu' or 'cuda:0'; correct the name") from error
        module = None if device.type == "cpu" else getattr(torch, device.type, None)
        there = 1 if device.type == "cpu" else module.device_count() if hasattr(module, "device_count") else 0
        if (device.index or 0) >= there:
            raise BadInput(f"`devices` holds {str(device)!r}, of which this torch finds {there} here; expected devices that are there; choose others")
        made.append(device)
    return made


def _is_factory(layer: Any) -> bool:
    return callable(layer) and not isinstance(layer, torch.nn.Module)


def named_layers(layers: Layers) -> List[Tuple[str, Any, bool]]:
    """(name, module or factory, whether it is one) of each."""
    if isinstance(layers, torch.nn.Sequential):
        layers = dict(layers.named_children())
    if isinstance(layers, torch.nn.ModuleList):
        layers = list(layers)
    if isinstance(layers, collections.abc.Mapping):
        named = [(str(name), layer) for name, layer in layers.items()]
    elif isinstance(layers, collections.abc.Sequence) and not isinstance(layers, (str, bytes)):
        named = [(str(index), layer) for index, layer in enumerate(layers)]
    else:
        raise BadInput(f"layers is {one(layers)}; expected a list, or a dict from names to layers; give list(...) of it")
    if not named:
        raise BadInput("layers is empty; expected at least one layer; give the network's layers in order")
    seen: Dict[int, str] = {}
    for name, layer in named:
        if not isinstance(layer, torch.nn.Module) and not _is_factory(layer):
            raise BadInput(f"layer {name} is {one(layer)}; expected a torch.nn.Module, or a function that makes one; wrap it in a module")
        if "." in name or not name:
            raise BadInput(f"a layer is named {name!r}; expected a name without dots; rename it")
        if isinstance(layer, torch.nn.Module):
            lazy = next((key for key, parameter in layer.named_parameters() if torch.nn.parameter.is_lazy(parameter)), None)
            if lazy is not None:
                raise BadInput(f"layer {name} has a parameter {lazy} without a shape; expected one that exists; run a lazy module once before")
            if id(layer) in seen:
                raise BadInput(
                    f"layer {name} is the same module as layer {seen[id(layer)]}; expected a module for each layer; "
                    "make two modules, and name their parameters in `ties`"
                )
            seen[id(layer)] = name
    return [(name, layer, not isinstance(layer, torch.nn.Module)) for name, layer in named]


def index_of(name: Name, layers: List[Tuple[str, Any, bool]], what: str) -> int:
    if isinstance(name, int):
        if not 0 <= name < len(layers):
            raise BadInput(f"{what} names layer {name}; expected 0 to {len(layers) - 1}; correct the number")
        return name
    for index, (known, _, _) in enumerate(layers):
        if known == name:
            return index
    raise BadInput(f"{what} names layer {name!r}; expected one of {', '.join(known for known, _, _ in layers)}; correct the name")


def resolved_ties(ties: Iterable[Tuple[str, str]], layers) -> List[Tuple[int, str, int, str]]:
    resolved = []
    for tie in ties:
        if not isinstance(tie, (tuple, list)) or len(tie) != 2 or not all(isinstance(end, str) and "." in end for end in tie):
            raise BadInput(f"a tie is {tie!r}; expected (owner, copy), each as 'layer.parameter'; correct `ties`")
        (owner, owned), (copy, copied) = (end.split(".", 1) for end in tie)
        resolved.append((index_of(owner, layers, "a tie"), owned, index_of(copy, layers, "a tie"), copied))
    return resolved


def shared_parameters(layers) -> List[Tuple[int, str, int, str]]:
    """Parameters that are one object in two layers: a tie of each with the first, which the engine keeps equal."""
    owners: Dict[int, Tuple[int, str]] = {}
    ties = []
    for index, (_, layer, is_factory) in enumerate(layers):
        if is_factory:
            continue
        for name, parameter in layer.named_parameters(remove_duplicate=True):
            owner = owners.setdefault(id(parameter), (index, name))
            if owner[0] != index:
                ties.append((*owner, index, name))
    return ties


def part_ways(layers, ties: Sequence[Tuple[int, str, int, str]]) -> None:
    """Gives each copy a parameter of its own: two ranks may not add to one gradient."""
    for owner, owned, copy, copied in ties:
        module = layers[copy][1]
        if layers[copy][2] or layers[owner][2]:
            continue
        path, _, last = copied.rpartition(".")
        holder = module.get_submodule(path)
        if holder is layers[owner][1].get_submodule(owned.rpartition(".")[0]):
            raise BadInput(
                f"layer {layers[copy][0]} has a module of layer {layers[owner][0]}, with the parameter {owned}; expected modules of its own; "
                "make two modules, and name their parameters in `ties`"
            )
        parameter = getattr(holder, last)
        if parameter is layers[owner][1].get_parameter(owned):
            setattr(holder, last, torch.nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad))


def resolved_skips(skips, layers) -> List[Tuple[int, int, int]]:
    resolved = []
    for skip in skips:
        if not isinstance(skip, (tuple, list)) or len(skip) not in (2, 3):
            raise BadInput(f"a skip is {skip!r}; expected (from, to) or (from, to, output); correct `skips`")
        start, end, output = (*skip, 0)[:3]
        resolved.append((-1 if start == "input" else index_of(start, layers, "a skip"), index_of(end, layers, "a skip"), int(output)))
    return resolved
