"""A plan travels to PyTorch: layers measured by examples/measure_layers.py, planned and exported by `penstock plan`, and trained in
PyTorch's schedule runtime on two processes to the gradients of one. Usage: plan_on_torch_test.py PATH_OF_plan_tool FOLDER_OF_examples.
Exit code 77: there is no PyTorch 2.13 or later.
"""

import json
import os
import subprocess
import sys
import tempfile

try:
    import torch
    import torch.distributed as dist
    import torch.distributed.pipelining.schedules as pipelining
    from torch.distributed.pipelining import PipelineStage
except ImportError as error:
    print(f"skipped: no PyTorch to run a plan on ({error})")
    sys.exit(77)

WIDTH = 16
BATCH = 16
RESTRICTIONS = [[], ["--schedule", "interleaved-1f1b", "--stages-per-rank", "2"], ["--schedule", "synthesised"],
                ["--schedule", "1f1b", "--cut", "1"]]


def network():
    torch.manual_seed(3)
    return [layer for _ in range(4) for layer in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh())]


def train_one(rank, folder):
    with open(f"{folder}/plan.json", encoding="utf-8") as file:
        plan = json.load(file)
    count = len(plan["stages"])
    layers = network()
    mine = [index for index, stage in enumerate(plan["stages"]) if stage["rank"] == rank]
    modules = {index: torch.nn.Sequential(*layers[plan["stages"][index]["first_layer"]:plan["stages"][index]["end_layer"]])
               for index in mine}
    stages = [PipelineStage(modules[index], index, count, torch.device("cpu")) for index in mine]
    runtime = pipelining._PipelineScheduleRuntime(stages, plan["microbatches"], loss_fn=torch.nn.functional.mse_loss)
    runtime._load_csv(f"{folder}/schedule.csv")
    torch.manual_seed(99)
    inputs, targets = torch.randn(BATCH, WIDTH), torch.randn(BATCH, WIDTH)
    runtime.step(*([inputs] if 0 in mine else []), **({"target": targets} if count - 1 in mine else {}))
    whole = network()
    torch.nn.functional.mse_loss(torch.nn.Sequential(*whole)(inputs), targets).backward()
    for index in mine:
        first = plan["stages"][index]["first_layer"]
        for offset, module in enumerate(modules[index]):
            for ours, expected in zip(module.parameters(), whole[first + offset].parameters(), strict=True):
                torch.testing.assert_close(ours.grad, expected.grad, msg=lambda text: f"{folder}, layer {first + offset}: {text}")


def train(rank, scratch):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{scratch}/store", rank=rank, world_size=2)
    for index in range(len(RESTRICTIONS)):
        train_one(rank, f"{scratch}/{index}")
    dist.destroy_process_group()


if __name__ == "__main__":
    tool, examples = sys.argv[1:3]
    sys.path.insert(0, examples)
    from measure_layers import measure_layers, save

    with tempfile.TemporaryDirectory() as scratch:
        cost = os.path.join(scratch, "cost.json")
        save(cost, measure_layers(network(), lambda samples: torch.randn(samples, WIDTH), sizes=[1, 4, 8], repeats=5,
                                  model={"name": "test"}))
        for index, restrictions in enumerate(RESTRICTIONS):
            # Powers of two: PyTorch cuts a batch into equal parts only.
            done = subprocess.run([tool, "plan", "--cost", cost, "--ranks", "2", "--batch", str(BATCH), "--microbatches", "2,4,8",
                                   "--model", "test", "--export-pytorch", f"{scratch}/{index}", *restrictions],
                                  capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{restrictions}: {done.stderr}"
        torch.multiprocessing.spawn(train, args=(scratch,), nprocs=2)
        print(f"{len(RESTRICTIONS)} plans trained in PyTorch's runtime to the gradients of one process")
