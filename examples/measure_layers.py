"""Measures a PyTorch network into a cost file for `penstock plan --cost`, as PyTorch's pipelining runtime runs it.

    python measure_layers.py cost.json --network tiny_llama.py --sizes 1,2,4,8 --processes 2
    penstock plan --cost cost.json --ranks 2 --batch 16 --export-pytorch pipeline
    torchrun --nproc-per-node 2 pipeline/train.py

network_layers.py says what the file of a network defines: a whole Llama or GPT-2 of transformers, or layers of your own. As many
processes as will train measure at once, so that they contend as in the run. Each layer's forward, backward, input-backward and
weight-backward are those of torch.distributed.pipelining, in rounds over the layers; beside them stand the cost of an action, of a
step, of the update (AdamW) and of the link between two processes (Gloo).

For layers in hand, in one process, where the link is not measured:

    from measure_layers import measure_layers, save
    layers = [torch.nn.Linear(512, 512), torch.nn.ReLU(), ...]      # in order, each from one tensor to one tensor
    save("cost.json", measure_layers(layers, lambda samples: torch.randn(samples, 512), sizes=[1, 2, 4, 8]))
"""

import argparse
import contextlib
import datetime
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time

import torch
import torch.distributed as dist
from network_layers import layers_of, load_network
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining._backward import stage_backward, stage_backward_input, stage_backward_weight
from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

# A spread of more than this share of the median is told.
NOISY = 0.2
# Medians whose standard error is below this share of them are known well enough.
WELL_KNOWN = 0.01


def time_ms(run):
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begun = time.perf_counter()
    result = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) * 1000, result


def median_and_spread(times):
    """The median, and the spread of the half of them in the middle."""
    if len(times) < 2:
        return times[0], 0.0
    quarters = statistics.quantiles(times, n=4)
    return statistics.median(times), quarters[2] - quarters[0]


def size_of(tensor):
    return tensor.numel() * tensor.element_size()


def saved_bytes(layer, x, parameters):
    """What autograd keeps of the forward for the backward, weights left out, each storage once; and the output."""
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


class LayerAtSize:
    """A layer at one microbatch size: its input, and the times of its passes so far. The last layer takes the loss with it."""

    def __init__(self, layer, x, needs_input_gradient, loss_of=None):
        self.layer, self.loss_of = layer, loss_of
        self.x = x.detach()
        self.differentiates_input = needs_input_gradient and x.is_floating_point()
        self.parameters = [parameter for parameter in layer.parameters() if parameter.requires_grad]
        self.times = {"forward": [], "backward": [], "input_backward": [], "weight_backward": []}
        self.activation, y = saved_bytes(layer, self._input(), self.parameters)
        self.output = y.detach()
        self.gradient = None if loss_of else torch.ones_like(self.output)

    def _input(self):
        x = self.x.detach()
        return x.requires_grad_() if self.differentiates_input else x

    def _forward(self, x):
        y = self.layer(x)
        return self.loss_of(y) if self.loss_of else y

    def run_once(self):
        """One forward with a backward in one piece and one with a backward in two, as the runtime calls them."""
        gradients = None if self.gradient is None else (self.gradient,)
        x = self._input()
        forward, y = time_ms(lambda: self._forward(x))
        self.times["forward"].append(forward)
        if not y.requires_grad:
            for name in ("backward", "input_backward", "weight_backward"):
                self.times[name].append(0.0)
            return
        whole, _ = time_ms(lambda: stage_backward(y if self.loss_of else (y,), gradients, (x,)))
        self.times["backward"].append(whole)
        if not self.differentiates_input:  # the runtime's first stage: its I does nothing, and its W is a whole backward
            self.times["input_backward"].append(0.0)
            self.times["weight_backward"].append(whole)
            return
        x = self._input()
        y = self._forward(x)
        to_input, (_, groups) = time_ms(lambda: stage_backward_input([y], gradients, [x], iter(self.parameters)))
        to_weights = time_ms(lambda: stage_backward_weight(iter(self.parameters), groups))[0] if self.parameters else 0.0
        self.times["input_backward"].append(to_input)
        self.times["weight_backward"].append(to_weights)

    def forget(self):
        for times in self.times.values():
            times.clear()

    def entry(self):
        entry = {"samples": self.x.shape[0], "activation_bytes": self.activation, "boundary_bytes": size_of(self.output)}
        for name, times in self.times.items():
            entry[name + "_ms"], entry[name + "_spread_ms"] = median_and_spread(times)
        return entry


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


def kind_of(layer):
    """Layers of equal kinds are measured once."""
    return str(layer), tuple((name, weights.shape, weights.dtype) for name, weights in layer.named_parameters())


def update_ms(layer, repeats):
    """Of an AdamW step of the layer's weights."""
    weights = [torch.nn.Parameter(parameter.detach().clone()) for parameter in layer.parameters() if parameter.requires_grad]
    if not weights:
        return 0.0
    optimizer = torch.optim.AdamW(weights)
    for parameter in weights:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return statistics.median(time_ms(optimizer.step)[0] for _ in range(repeats))


@contextlib.contextmanager
def group_of_this_process():
    """A process group in which this process is alone."""
    if dist.is_initialized():
        groups = [dist.new_group([rank]) for rank in range(dist.get_world_size())]
        yield groups[dist.get_rank()]
        return
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


def runtime_overheads(repeats):
    """What PyTorch's runtime takes for an action and for a step beside the layers: two stages of next to nothing in one process,
    with few microbatches and with many."""
    few, many = 4, 16
    tiny = LayerAtSize(torch.nn.Linear(1, 1), torch.zeros(1, 1), needs_input_gradient=True)
    medians = {}
    with group_of_this_process() as group, tempfile.TemporaryDirectory() as folder:
        for microbatches in (few, many):
            with open(f"{folder}/tiny.csv", "w", encoding="utf-8") as file:
                file.write(",".join(f"0F{m},1F{m},1B{m},0B{m}" for m in range(microbatches)) + "\n")
            stages = [PipelineStage(torch.nn.Linear(1, 1), index, 2, torch.device("cpu"), group=group) for index in range(2)]
            runtime = _PipelineScheduleRuntime(stages, microbatches, loss_fn=torch.nn.functional.mse_loss, scale_grads=False)
            runtime._load_csv(f"{folder}/tiny.csv")
            x = torch.zeros(microbatches, 1)
            medians[microbatches] = statistics.median(time_ms(lambda: runtime.step(x, target=x))[0]  # noqa: B023
                                                      for _ in range(repeats + 3))
            for _ in range(repeats):
                tiny.run_once()
    actions = 4
    of_microbatch = (medians[many] - medians[few]) / (many - few)
    entry = tiny.entry()
    of_layers = 2 * (entry["forward_ms"] + entry["backward_ms"])
    return max(of_microbatch - of_layers, 0.0) / actions, max(medians[few] - few * of_microbatch, 0.0)


def link_between(repeats):
    """Latency and bandwidth of messages to and fro between processes 0 and 1, and what posting one takes."""
    rank = dist.get_rank()
    few, many = 1 << 10, 1 << 22
    one_way, posting = {}, []
    for size in (few, many):
        message = torch.zeros(size, dtype=torch.uint8)
        times = []
        for _ in range(repeats + 3):
            dist.barrier()
            if rank > 1:
                continue
            begun = time.perf_counter()
            for mine in (rank == 0, rank != 0):
                operation = dist.P2POp(dist.isend if mine else dist.irecv, message, 1 - rank)
                posted = time.perf_counter()
                works = dist.batch_isend_irecv([operation])
                posting.append((time.perf_counter() - posted) * 1000)
                for work in works:
                    work.wait()
            times.append((time.perf_counter() - begun) * 1000 / 2)
        one_way[size] = statistics.median(times) if times else 0.0
    taken = max(one_way[many] - one_way[few], 1e-6)
    bandwidth = (many - few) / taken
    return {"latency_ms": max(one_way[few] - few / bandwidth, 0.0), "bandwidth_bytes_per_ms": bandwidth}, \
        statistics.median(posting) if posting else 0.0


def run_in_rounds(all_measured, repeats, budget_s):
    """Rounds over all layers and sizes, at least `repeats`, then until the medians are known well enough or the budget is spent.
    Returns how many there were, and the standard error of the medians as a share of them."""
    warm_up = 2
    begun = time.perf_counter()
    for index in itertools.count():
        if index == warm_up:
            for measured in all_measured:
                measured.forget()
        rounds = index - warm_up
        if rounds >= repeats:
            uncertainty = uncertainty_of([measured.entry() for measured in all_measured], rounds)
            if uncertainty <= WELL_KNOWN or time.perf_counter() - begun > budget_s:
                return rounds, uncertainty
        for measured in all_measured:
            measured.run_once()


def uncertainty_of(entries, rounds):
    """The standard error of the medians of the layers' passes, all together, as a share of them. Of a normal distribution the median's is
    1.25 standard deviations, and the middle half is 1.35 of them wide, by the root of the rounds."""
    passes = ("forward", "backward", "input_backward", "weight_backward")
    time_of_all = sum(entry[f"{name}_ms"] for entry in entries for name in passes)
    spread = sum(entry[f"{name}_spread_ms"] for entry in entries for name in passes)
    return 1.25 / 1.35 * spread / rounds**0.5 / time_of_all


def measured_entries(layers, names, make_input, sizes, repeats, state_factor, make_loss, budget_s):
    """The entries of the layers, of those that are alike the first, measured in rounds over layers and sizes; and what the cost file says
    of the measurement."""
    entries, first_of_kind, samples_of_layers = [], {}, []
    for index, (name, layer) in enumerate(zip(names, layers, strict=True)):
        parameter = sum(size_of(weights) for weights in layer.parameters())
        # The first layer's input needs no gradient, and the last one's forward has the loss in it.
        alone = index in (0, len(layers) - 1)
        like = first_of_kind.get(kind_of(layer)) if not alone else None
        if like is not None:
            entries.append({"name": name, "like": like})
            continue
        if not alone:
            first_of_kind[kind_of(layer)] = name
        entries.append({"name": name, "parameter_bytes": parameter, "optimizer_bytes": state_factor * parameter,
                        "update_ms": update_ms(layer, repeats), "sizes": []})
    for samples in sizes:
        x = make_input(samples)
        for index, (layer, entry) in enumerate(zip(layers, entries, strict=True)):
            loss_of = make_loss(samples) if make_loss and index == len(layers) - 1 else None
            if "like" in entry:
                continue  # its output is shaped as its input was, as that of its like
            measured = LayerAtSize(layer, x, index > 0, loss_of)
            samples_of_layers.append((entry, measured))
            x = measured.output
    at = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    rounds, uncertainty = run_in_rounds([measured for _, measured in samples_of_layers], repeats, budget_s)
    for entry, measured in samples_of_layers:
        entry["sizes"].append(measured.entry())
    return entries, {"at": at, "rounds": rounds, "spread": uncertainty}


def measure_layers(layers, make_input, sizes, repeats=20, model=None, state_factor=2, names=None, make_loss=None, budget_s=60):
    """The costs of `layers` for `make_input(samples)`. `state_factor`: bytes of optimizer state a byte of weights (Adam: 2).
    At least `repeats` rounds, and at most `budget_s` seconds for more, until the medians are known to a hundredth.
    `make_loss(samples)`: a function from the output to the loss, which counts with the last layer.
    A tied parameter counts in each of its layers; `ties` says so, and the planner shares it where its ends share a rank on PyTorch."""
    names = names or [f"{index} {type(layer).__name__}" for index, layer in enumerate(layers)]
    costs = {"model": model or {}, "machine": {"processor": platform.processor() or platform.machine(),
                                               "threads": str(torch.get_num_threads()), "torch": torch.__version__}}
    costs["layers"], costs["measured"] = measured_entries(layers, names, make_input, sizes, repeats, state_factor, make_loss, budget_s)
    costs["input_bytes_per_sample"] = size_of(make_input(1))
    costs["input_needs_gradient"] = False
    costs["ties"] = find_ties(layers)
    costs["action_overhead_ms"], costs["step_overhead_ms"] = runtime_overheads(repeats)
    # The link takes two processes: measure_network measures it. Here: set it to that between your devices.
    costs["link"] = {"latency_ms": 0.05, "bandwidth_bytes_per_ms": 5_000_000}
    return costs


def spread_of(costs):
    """Of the passes of all layers together, as a share of their time."""
    sizes = [size for layer in costs["layers"] for size in layer.get("sizes", [])]
    passes = ("forward", "backward", "input_backward", "weight_backward")
    return sum(size[f"{name}_spread_ms"] for size in sizes for name in passes) / sum(size[f"{name}_ms"] for size in sizes for name in passes)


def _measure_in_process(rank, path, sizes, processes, repeats, budget_s, store, output):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes)
    described = load_network(path)
    named = layers_of(described.network())

    def make_loss(samples):
        target = described.targets(samples)
        return lambda output: described.loss(output, target)

    costs = measure_layers([layer for _, layer in named], described.inputs, sizes, repeats,
                           {"name": os.path.splitext(os.path.basename(path))[0], "network": os.path.abspath(path)},
                           names=[name for name, _ in named], make_loss=make_loss, budget_s=budget_s)
    if processes > 1:
        costs["link"], posting = link_between(max(repeats, 30))
        # An action between ranks posts a message or two; those of two stages on one rank post none.
        costs["action_overhead_ms"] += posting
    if rank == 0:
        save(output, costs)
    dist.barrier()
    dist.destroy_process_group()


def measure_network(path, sizes, processes, output, repeats=20, budget_s=60):
    """The costs of the network that the file describes, into a cost file: measured in so many processes at once."""
    with tempfile.TemporaryDirectory() as scratch:
        torch.multiprocessing.spawn(_measure_in_process, (path, sizes, processes, repeats, budget_s, f"{scratch}/store", output),
                                    nprocs=processes)
    with open(output, encoding="utf-8") as file:
        return json.load(file)


def save(path, costs):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(costs, file, indent=2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cost", help="JSON file to write")
    parser.add_argument("--network", required=True, help="Python file that describes the network (network_layers.py)")
    parser.add_argument("--sizes", default="1,2,4,8", help="samples of the microbatches to measure, with commas between")
    parser.add_argument("--processes", type=int, default=2, help="that measure at once: as many as will train on this machine")
    parser.add_argument("--repeats", type=int, default=20, help="rounds over the layers, at least")
    parser.add_argument("--budget", type=float, default=60, help="seconds for more rounds, until the medians are known to a hundredth")
    options = parser.parse_args()
    costs = measure_network(options.network, [int(size) for size in options.sizes.split(",")], options.processes, options.cost,
                            options.repeats, options.budget)
    spread = spread_of(costs)
    print(f"{options.cost}: {len(costs['layers'])} layers; spread of the passes: {spread:.0%} of the median; "
          f"an action costs {costs['action_overhead_ms']:.3f} ms beside its layers; "
          f"a message takes {costs['link']['latency_ms']:.3f} ms and {costs['link']['bandwidth_bytes_per_ms'] / 1e6:.2f} GB/s")
    if spread > NOISY:
        print("noisy: other programs use the machine; measure again, or with more --repeats", file=sys.stderr)


if __name__ == "__main__":
    main()
