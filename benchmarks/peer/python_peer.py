"""penstock's side of script/bench peer_python, with the modules of torch_peer.py as layers; peer.py drives both sides.

Writes its initial weights and its minibatch for the other side, says with which cut, and then does as many training
steps as each line on the standard input says. Beside each answer stands what all layers waited for the interpreter's lock.
"""

import argparse
import gc
import json
import os
import pathlib
import sys
import time

import torch
from safetensors.torch import save_file
from torch_peer import loss_of, make_layer

import penstock as ps


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("gpt", "linear"), required=True)
    parser.add_argument("--schedule", required=True)
    for name in ("layers", "width", "heads", "context", "vocabulary", "ranks", "stages-per-rank", "microbatches", "batch"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--momentum", type=float, required=True)
    parser.add_argument("--tensors", type=pathlib.Path, required=True, help="where weights, input and target are written")
    parser.add_argument("--process", type=int, default=0, help="this one's number, where each rank is a process")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--port", type=int, default=0, help="of process 0, at loopback")
    return parser.parse_args()


def minibatch(settings: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (settings.batch, settings.context) if settings.network == "gpt" else (settings.batch, settings.width)
    if settings.network == "gpt":
        return torch.randint(settings.vocabulary, shape), torch.randint(settings.vocabulary, shape)
    return torch.randn(shape), torch.randn(shape)


def forward_ms(timeline) -> float:
    """Of all forward passes of all ranks together: in threads the waits for the lock within a layer are in it too."""
    return sum(end - start for rank in timeline.events for action, start, end in rank if "F" in action and "RECV" not in action and "SEND" not in action)


def answer(line: dict) -> None:
    print(json.dumps(line), flush=True)


def main() -> None:
    settings = parse()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    count = settings.layers + 2 if settings.network == "gpt" else settings.layers
    layers = [make_layer(settings, index) for index in range(count)]
    x, y = minibatch(settings)
    if settings.process == 0:
        weights = {f"layers.{name}": tensor for name, tensor in torch.nn.Sequential(*layers).state_dict().items()}
        save_file({"input": x, "target": y, **weights}, settings.tensors)
    if settings.processes > 1:
        os.environ.update(RANK=str(settings.process), WORLD_SIZE=str(settings.processes), MASTER_ADDR="127.0.0.1",
                          MASTER_PORT=str(settings.port))
    try:
        pipe = ps.Pipeline(layers, loss_of(settings.network), optimizer=ps.SGD(lr=settings.learning_rate, momentum=settings.momentum),
                           schedule=ps.schedule(settings.schedule, ranks=settings.ranks, microbatches=settings.microbatches,
                                                stages_per_rank=settings.stages_per_rank))
    except ps.BadInput as error:
        answer({"refused": str(error)})
        sys.exit(2)
    gc.freeze()
    gc.disable()
    answer({"cut": pipe.cut} if settings.process == 0 else {})
    for line in sys.stdin:
        steps = int(line)
        gc.collect()
        pipe.report()  # as the other side's barrier: all have come so far
        start = time.perf_counter_ns()
        results = [pipe.step(x, y) for _ in range(steps)]
        end = time.perf_counter_ns()
        of_row = {"start": start / 1e6, "end": end / 1e6, "lock": sum(result.lock_wait_ms for result in results) / steps}
        if settings.process == 0:
            of_row["loss"] = results[-1].loss
            of_row["forward"] = forward_ms(results[-1].timeline)
        answer(of_row)
    pipe.close()


if __name__ == "__main__":
    main()
