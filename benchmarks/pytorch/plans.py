"""The planner's first choice on PyTorch against the published schedules that people take, and its own second.

For a tiny Llama and GPT-2 of transformers: the layers are measured by examples/measure_layers.py in two processes, `penstock plan` chooses,
and the plans are trained on torch.distributed.pipelining in two processes (Gloo), a step of each in turn. Each of 1f1b, zb-v and
interleaved-1f1b has the cut and the microbatches that the planner chooses for it. The first choice runs a second time under another
name: what tells the two apart is the noise. GPT-2's head is untied here, as only zb-v and its like keep both ends of a tie on one rank.

Prints a Markdown table. Ends with 1 where the first choice is more than a tenth slower than the best.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import torch.distributed as dist

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))
from measure_layers import measure_network, spread_of  # noqa: E402
from network_layers import layers_of, load_network  # noqa: E402

PUBLISHED = ("1f1b", "zb-v", "interleaved-1f1b")
WARM_UP = 3
BAR = 1.10


def program(folder):
    description = importlib.util.spec_from_file_location("train", f"{folder}/train.py")
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    return module


def train(rank, network, folders, rounds, store, output):
    """A step of each plan in turn, the order turned round every other time."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    described = load_network(network)
    pipelines = {name: program(folder).Pipeline(folder, layers_of(described.network()), described.loss)
                 for name, folder in folders.items()}
    torch.manual_seed(0)
    times = {name: [] for name in folders}
    for index in range(WARM_UP + rounds):
        for name in list(folders) if index % 2 else reversed(list(folders)):
            batch = pipelines[name].plan["batch"]
            inputs, targets = described.inputs(batch), described.targets(batch)
            dist.barrier()
            begun = time.perf_counter()
            pipelines[name].step(inputs, targets)
            dist.barrier()
            if index >= WARM_UP:
                times[name].append((time.perf_counter() - begun) * 1000)
    if rank == 0:
        with open(output, "w", encoding="utf-8") as file:
            json.dump(times, file)
    dist.barrier()
    dist.destroy_process_group()


def plan(penstock, cost, batch, *options):
    command = [penstock, "plan", "--cost", cost, "--ranks", "2", "--batch", str(batch), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)["plans"]


def untied(network, folder):
    """A copy of the description whose head has weights of its own."""
    text = pathlib.Path(network).read_text(encoding="utf-8").replace("TIED = True", "TIED = False")
    path = f"{folder}/{os.path.basename(network)}"
    pathlib.Path(path).write_text(text, encoding="utf-8")
    return path


def export_all(penstock, cost, batch, scratch):
    """The folder of each plan by its name, what it was predicted to take, and how it reads."""
    chosen = plan(penstock, cost, batch, "--top", "2", "--export-pytorch", f"{scratch}/first")
    folders = {"first choice": f"{scratch}/first", "the same again": f"{scratch}/first"}
    described = {"first choice": chosen[0], "the same again": chosen[0]}
    restrictions = {name: ("--schedule", name) for name in PUBLISHED}
    if len(chosen) > 1:
        second = chosen[1]
        restrictions["second choice"] = ("--schedule", second["schedule"], "--microbatches", str(second["microbatches"]),
                                         "--stages-per-rank", str(second["stages_per_rank"]))
    for name, options in restrictions.items():
        folders[name] = f"{scratch}/{name.replace(' ', '_')}"
        described[name] = plan(penstock, cost, batch, "--export-pytorch", folders[name], *options)[0]
    return folders, described


def quarters(values):
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def compare(penstock, network, options, scratch):
    cost, times = f"{scratch}/cost.json", f"{scratch}/times.json"
    costs = measure_network(network, [1, 2, 4, 8], 2, cost, options.measurements)
    spread = spread_of(costs)
    folders, described = export_all(penstock, cost, options.batch, scratch)
    torch.multiprocessing.spawn(train, (network, folders, options.rounds, f"{scratch}/store", times), nprocs=2)
    with open(times, encoding="utf-8") as file:
        measured = json.load(file)
    medians = {name: statistics.median(values) for name, values in measured.items()}
    print(f"\n{pathlib.Path(network).stem}: batch {options.batch}, {options.rounds} rounds; spread of the layers' measured passes "
          f"{spread:.0%}, action overhead {costs['action_overhead_ms']:.3f} ms, latency {costs['link']['latency_ms']:.3f} ms\n")
    print("| plan | schedule | stages | M | planned, ms | measured, ms | middle half, ms | of the best |\n|---|---|---|---|---|---|---|---|")
    best = min(median for name, median in medians.items() if name != "the same again")
    for name, median in medians.items():
        low, high = quarters(measured[name])
        entry = described[name]
        print(f"| {name} | {entry['schedule']} | {entry['stages']} | {entry['microbatches']} | {entry['step_ms']:.1f} | {median:.1f} | "
              f"{low:.1f}–{high:.1f} | {median / best:.3f} |")
    noise = abs(medians["the same again"] / medians["first choice"] - 1)
    ratio = medians["first choice"] / best
    print(f"\nfirst choice: {(ratio - 1):.1%} above the best of {len(medians) - 1}; noise (the same plan twice): {noise:.1%}", flush=True)
    return ratio <= BAR


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--penstock", required=True, help="the program")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--measurements", type=int, default=20, help="rounds over the layers")
    options = parser.parse_args()
    good = True
    for name in ("tiny_llama", "tiny_gpt2"):
        with tempfile.TemporaryDirectory() as scratch:
            good &= compare(options.penstock, untied(ROOT / "examples" / f"{name}.py", scratch), options, scratch)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
