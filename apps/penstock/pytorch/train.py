"""Trains a network with the plan in this folder on torch.distributed.pipelining (PyTorch 2.13):

    torchrun --nproc-per-node RANKS train.py --network FILE.py --steps 20

FILE.py describes the network as network_layers.py beside this file says. It need not be named where the plan's costs were measured by
measure_layers.py: then it is the one that was measured. inputs() and targets() of FILE.py may return data of your own.
"""

import argparse
import json
import os
import sys
import time

import torch
import torch.distributed as dist
import torch.distributed.pipelining.schedules as schedules
from torch.distributed.pipelining import PipelineStage
from torch.utils.checkpoint import checkpoint

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, FOLDER)
from network_layers import layers_of, load_network  # noqa: E402


class Stage(torch.nn.Sequential):
    """The layers of a stage; where the plan says so, they keep only their inputs and run again in the backward."""

    recomputed = False

    def forward(self, x):
        for layer in self:
            x = checkpoint(layer, x, use_reentrant=False) if self.recomputed else layer(x)
        return x


def cut_by_names(plan, layers):
    """The modules of each stage, by the names that the plan has."""
    named = dict(layers)
    wanted = [name for stage in plan["stages"] for name in stage["layers"]]
    if wanted != [name for name, _ in layers]:
        odd = next((name for name in wanted if name not in named), None)
        sys.exit(f"the plan is of another network: it has {len(wanted)} layers, this one {len(layers)}"
                 + (f", and none is called {odd}" if odd else ", in another order"))
    return [[named[name] for name in stage["layers"]] for stage in plan["stages"]]


def share_ties(plan, modules):
    """One Parameter object for both ends of a tie, which this plan keeps on one rank."""
    for tie in plan["ties"]:
        owner, copy = tie["owner"], tie["copy"]
        module, _, name = copy["parameter"].rpartition(".")
        setattr(modules[copy["layer"]].get_submodule(module), name, modules[owner["layer"]].get_parameter(owner["parameter"]))


class Pipeline:
    """This rank's stages of the plan, with PyTorch's runtime and an optimizer."""

    def __init__(self, plan_folder, layers, loss, device=torch.device("cpu"), learning_rate=1e-3):
        with open(os.path.join(plan_folder, "plan.json"), encoding="utf-8") as file:
            self.plan = plan = json.load(file)
        rank, count = dist.get_rank(), len(plan["stages"])
        if dist.get_world_size() != plan["ranks"]:
            sys.exit(f"got {dist.get_world_size()} processes, expected {plan['ranks']}, the plan's ranks; start torchrun with "
                     f"--nproc-per-node {plan['ranks']}")
        share_ties(plan, [module for _, module in layers])
        of_stages = cut_by_names(plan, layers)
        self.mine = [index for index, stage in enumerate(plan["stages"]) if stage["rank"] == rank]
        stages = []
        for index in self.mine:
            module = Stage(*of_stages[index]).to(device)
            module.recomputed = plan["stages"][index]["recompute"]
            stages.append(PipelineStage(module, index, count, device))
        self.has_first, self.has_last = 0 in self.mine, count - 1 in self.mine
        microbatches = plan["microbatches"]
        # The loss is a mean. It is divided here, as PyTorch would divide the gradient of a tied parameter once for each of its stages.
        self.runtime = schedules._PipelineScheduleRuntime(stages, microbatches, scale_grads=False,
                                                          loss_fn=lambda output, target: loss(output, target) / microbatches)
        self.runtime._load_csv(os.path.join(plan_folder, "schedule.csv"))  # compute actions: PyTorch adds sends and receives
        self.modules = torch.nn.ModuleList(stage.submod for stage in stages)
        parameters = list(self.modules.parameters())  # each once
        self.optimizer = torch.optim.AdamW(parameters, lr=learning_rate) if parameters else None

    def gradients(self, inputs, targets):
        """A forward and a backward of the batch. Returns the loss on the rank that has the last stage, and None elsewhere."""
        losses = []
        arguments = [inputs] if self.has_first else []
        keywords = {"target": targets, "losses": losses} if self.has_last else {}
        # Without a target only where there is no last stage; without outputs, which no one needs, nothing is kept for them.
        self.runtime.step(*arguments, **keywords, return_outputs=False)
        return float(sum(loss.detach() for loss in losses)) if self.has_last else None

    def step(self, inputs, targets):
        loss = self.gradients(inputs, targets)
        if self.optimizer:
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", help="Python file that describes the network; by default the one that was measured")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    options = parser.parse_args()
    with open(os.path.join(FOLDER, "plan.json"), encoding="utf-8") as file:
        plan = json.load(file)
    network = options.network or plan["model"].get("network")
    if network is None:
        sys.exit("no --network; expected the Python file that describes the network (network_layers.py says how)")
    described = load_network(network)
    torch.set_num_threads(options.threads)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    dist.init_process_group("nccl" if on_gpu else "gloo")
    pipeline = Pipeline(FOLDER, layers_of(described.network()), described.loss, device, options.learning_rate)
    torch.manual_seed(0)  # every rank draws the same batches
    for step in range(options.steps):
        inputs, targets = described.inputs(plan["batch"]).to(device), described.targets(plan["batch"]).to(device)
        begun = time.perf_counter()
        loss = pipeline.step(inputs, targets)
        if loss is not None:
            print(f"step {step + 1}: loss {loss:.4f}, {(time.perf_counter() - begun) * 1000:.1f} ms "
                  f"({plan['prediction']['step_ms']:.1f} ms planned)", flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
