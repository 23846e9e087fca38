"""One rank of torch.distributed.pipelining's side of script/bench peer; peer.py drives both sides.

Takes weights and minibatch from penstock's side; does as many training steps as each line on the standard input says.
"""

import argparse
import collections
import gc
import json
import pathlib
import struct
import sys
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed import pipelining
from torch.distributed.pipelining.schedules import (
    PipelineScheduleSingle, ScheduleDualPipeV, ScheduleInterleaved1F1B, ScheduleInterleavedZeroBubble,
    ScheduleLoopedBFS, ScheduleZBVZeroBubble)

SCHEDULES = {
    "gpipe": pipelining.ScheduleGPipe,
    "1f1b": pipelining.Schedule1F1B,
    "interleaved-1f1b": ScheduleInterleaved1F1B,
    "looped-bfs": ScheduleLoopedBFS,
    "interleaved-zb": ScheduleInterleavedZeroBubble,
    "zb-v": ScheduleZBVZeroBubble,
    "dualpipev": ScheduleDualPipeV,
}
IN_A_V = {"zb-v", "dualpipev"}


# The modules and their names are those of src/nn/gpt.cpp, so that the weights fit.
class Embedding(nn.Module):
    def __init__(self, vocabulary: int, context: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.token(tokens) + self.position(torch.arange(tokens.shape[1]))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, activation: torch.Tensor) -> torch.Tensor:
        microbatch, context, width = activation.shape
        shape = (microbatch, context, 3, self.heads, width // self.heads)
        query, key, value = self.qkv(activation).view(shape).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.projection(mixed.transpose(1, 2).reshape(microbatch, context, width))


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.widen = nn.Linear(width, 4 * width)
        self.projection = nn.Linear(4 * width, width)

    def forward(self, activation: torch.Tensor) -> torch.Tensor:
        return self.projection(F.gelu(self.widen(activation)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)

    def forward(self, activation: torch.Tensor) -> torch.Tensor:
        attended = activation + self.attention(self.attention_norm(activation))
        return attended + self.feed_forward(self.feed_forward_norm(attended))


class Head(nn.Module):
    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary, bias=False)

    def forward(self, activation: torch.Tensor) -> torch.Tensor:
        return self.output(self.norm(activation))


def make_layer(settings: argparse.Namespace, index: int) -> nn.Module:
    if settings.network == "linear":
        return nn.Linear(settings.width, settings.width)
    if index == 0:
        return Embedding(settings.vocabulary, settings.context, settings.width)
    if index <= settings.layers:
        return Block(settings.width, settings.heads)
    return Head(settings.vocabulary, settings.width)


def loss_of(network: str):
    if network == "linear":
        return F.mse_loss
    return lambda logits, target: F.cross_entropy(logits.flatten(0, -2), target.flatten())


def read_tensors(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """A safetensors file, by hand: the package of that name is no part of PyTorch."""
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", content)
    types = {"F32": torch.float32, "I64": torch.int64}
    tensors = {}
    for name, entry in json.loads(content[8:8 + length]).items():
        if name == "__metadata__":
            continue
        data = torch.frombuffer(content[8 + length:], dtype=torch.uint8)
        begin, end = entry["data_offsets"]
        tensors[name] = data[begin:end].clone().view(types[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def make_stage(settings: argparse.Namespace, stage: int,
               tensors: dict[str, torch.Tensor]) -> pipelining.PipelineStage:
    count = settings.layers + 2 if settings.network == "gpt" else settings.layers
    bounds = settings.cut + [count]
    layers = range(bounds[stage], bounds[stage + 1])
    named = collections.OrderedDict((str(index), make_layer(settings, index)) for index in layers)
    module = nn.Sequential(named)
    weights = {name.removeprefix("layers."): tensor for name, tensor in tensors.items()
               if name.startswith("layers.") and int(name.split(".")[1]) in layers}
    module.load_state_dict(weights)
    return pipelining.PipelineStage(module, stage, len(settings.cut), torch.device("cpu"))


def stages_of(settings: argparse.Namespace) -> list[int]:
    stages = len(settings.cut)
    if settings.schedule in IN_A_V:
        return [settings.rank, stages - 1 - settings.rank]
    return list(range(settings.rank, stages, settings.ranks))


class Peer:
    def __init__(self, settings: argparse.Namespace) -> None:
        tensors = read_tensors(settings.tensors)
        stages = [make_stage(settings, stage, tensors) for stage in stages_of(settings)]
        family = SCHEDULES[settings.schedule]
        held = stages[0] if issubclass(family, PipelineScheduleSingle) else stages
        self.schedule = family(held, settings.microbatches, loss_fn=loss_of(settings.network))
        self.inputs = (tensors["input"],) if any(stage.is_first for stage in stages) else ()
        self.target = tensors["target"] if any(stage.is_last for stage in stages) else None
        parameters = [parameter for stage in stages for parameter in stage.submod.parameters()]
        # The fused one is the fastest of SGD's three implementations here.
        self.optimizer = torch.optim.SGD(parameters, lr=settings.learning_rate,
                                         momentum=settings.momentum, fused=True)

    def row(self, steps: int) -> dict[str, float]:
        """So many steps: start and end in milliseconds of the clock that all processes share; the loss from who has it."""
        # While nothing is timed: Python would otherwise collect, and so stop every rank, at any moment.
        gc.collect()
        dist.barrier()
        start = time.perf_counter_ns()
        for _ in range(steps):
            losses: list[torch.Tensor] | None = None if self.target is None else []
            self.optimizer.zero_grad()
            self.schedule.step(*self.inputs, target=self.target, losses=losses, return_outputs=False)
            self.optimizer.step()
        end = time.perf_counter_ns()
        answer = {"start": start / 1e6, "end": end / 1e6}
        if losses:
            answer["loss"] = torch.stack(losses).double().mean().item()
        return answer


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=("gpt", "linear"), required=True)
    for name in ("layers", "width", "heads", "context", "vocabulary", "rank", "ranks", "microbatches"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--schedule", choices=SCHEDULES, required=True)
    parser.add_argument("--cut", type=lambda text: [int(layer) for layer in text.split(",")], required=True,
                        help="the first layer of each stage: 0,5")
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--momentum", type=float, required=True)
    parser.add_argument("--tensors", type=pathlib.Path, required=True,
                        help="what penstock's side has written")
    parser.add_argument("--meeting", required=True,
                        help="a new file, the same for all ranks, in which they meet")
    return parser.parse_args()


def answer(line: dict) -> None:
    print(json.dumps(line), flush=True)


def main() -> None:
    settings = parse()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{settings.meeting}",
                            rank=settings.rank, world_size=settings.ranks)
    try:
        peer = Peer(settings)
    except ValueError as error:
        answer({"refused": " ".join(str(error).split())})
        sys.exit(2)
    gc.freeze()
    gc.disable()
    answer({"torch": torch.__version__})
    for line in sys.stdin:
        answer(peer.row(int(line)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
