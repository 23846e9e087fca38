"""Measures the layers of a PyTorch network into a cost file for `penstock plan --cost`.

    from measure_layers import measure_layers, save
    layers = [torch.nn.Linear(512, 512), torch.nn.ReLU(), ...]      # in order, each from one tensor to one tensor
    save("cost.json", measure_layers(layers, lambda samples: torch.randn(samples, 512), sizes=[1, 2, 4, 8]))

    penstock plan --cost cost.json --ranks 4 --batch 64 --export-pytorch pipeline

Run as a program it does so for a small network: measure_layers.py cost.json
"""

import json
import platform
import statistics
import sys
import time

import torch


def median_ms(run, repeats):
    """The median of a function's time, and the spread of the half of them in the middle."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append((time.perf_counter() - begun) * 1000)
    quarters = statistics.quantiles(times, n=4) if repeats > 1 else times * 3
    return statistics.median(times), quarters[2] - quarters[0]


def size_of(tensor):
    return tensor.numel() * tensor.element_size()


def saved_bytes(layer, x, parameters):
    """What autograd keeps of the forward for the backward, weights left out, each storage once."""
    kept = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in parameters}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x)
    return sum(kept.values()), y


def measure_at(layer, x, repeats):
    """One layer at one microbatch size, as an entry of `sizes`, and its output."""
    parameters = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    x = x.detach()
    if x.is_floating_point():
        x.requires_grad_()
    activation, y = saved_bytes(layer, x, parameters)
    gradient = torch.ones_like(y)

    def backward_to(targets):
        if not targets or not y.requires_grad:
            return 0.0, 0.0
        torch.autograd.grad(y, targets, gradient, retain_graph=True, allow_unused=True)  # warms up
        return median_ms(lambda: torch.autograd.grad(y, targets, gradient, retain_graph=True, allow_unused=True), repeats)

    forward = median_ms(lambda: layer(x), repeats)
    to_input = backward_to([x] if x.requires_grad else [])
    to_weights = backward_to(parameters)
    whole = backward_to(([x] if x.requires_grad else []) + parameters)
    entry = {"samples": x.shape[0], "activation_bytes": activation, "boundary_bytes": size_of(y)}
    # The two parts share the way through the layer: what both together take beyond the input's is the weights'.
    weights_only = max(whole[0] - to_input[0], 0.0) if parameters else 0.0
    for name, (median, spread) in [("forward", forward), ("input_backward", to_input),
                                   ("weight_backward", (weights_only, to_weights[1])), ("backward", whole)]:
        entry[name + "_ms"], entry[name + "_spread_ms"] = median, spread
    return entry, y.detach()


def find_ties(layers):
    """Parameters that are one and live in two layers or more: the same object, or the same storage. The first is the owner."""
    owners, ties = {}, []
    for index, layer in enumerate(layers):
        # A parameter that a layer has under two names is one of that layer's all the same.
        for name, weights in layer.named_parameters():
            place = (weights.device, weights.untyped_storage().data_ptr())
            if weights.device.type == "meta" or weights.numel() == 0:
                place = id(weights)
            end = {"layer": index, "parameter": name}
            shape = (weights.storage_offset(), weights.shape, weights.stride())
            owner, owner_shape, taken = owners.setdefault(place, (end, shape, {index}))
            if shape != owner_shape and owner is not end:
                raise ValueError(f"layer {index} {name} shares a part of the storage of layer {owner['layer']} {owner['parameter']}: "
                                 "only whole parameters can be tied")
            if index not in taken:
                taken.add(index)
                ties.append({"owner": owner, "copy": end, "bytes": size_of(weights)})
    return ties


def measure_layers(layers, make_input, sizes, repeats=20, model=None, state_factor=2):
    """The costs of `layers` for `make_input(samples)`. `state_factor`: bytes of optimizer state a byte of weights (Adam: 2).
    A tied parameter counts in each of its layers; `ties` says so, and the planner shares it where its ends share a rank on PyTorch."""
    costs = {"model": model or {}, "machine": {"processor": platform.processor() or platform.machine(),
                                               "threads": torch.get_num_threads(), "torch": torch.__version__}}
    entries = []
    for index, layer in enumerate(layers):
        parameter = sum(size_of(weights) for weights in layer.parameters())
        entries.append({"name": f"{index} {type(layer).__name__}", "parameter_bytes": parameter,
                        "optimizer_bytes": state_factor * parameter, "sizes": []})
    for samples in sizes:
        x = make_input(samples)
        costs["input_bytes_per_sample"] = size_of(x) // samples
        for layer, entry in zip(layers, entries):
            at_size, x = measure_at(layer, x, repeats)
            entry["sizes"].append(at_size)
    costs["layers"] = entries
    costs["ties"] = find_ties(layers)
    # Links are not measured here: set them to those between your devices.
    costs["link"] = {"latency_ms": 0.05, "bandwidth_bytes_per_ms": 5_000_000}
    return costs


def save(path, costs):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(costs, file, indent=2)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.manual_seed(1)
    network = [layer for _ in range(4) for layer in (torch.nn.Linear(64, 64), torch.nn.Tanh())]
    save(sys.argv[1], measure_layers(network, lambda samples: torch.randn(samples, 64), sizes=[1, 2, 4, 8], model={"name": "example"}))
