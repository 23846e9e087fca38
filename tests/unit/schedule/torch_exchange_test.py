"""Schedules travel to PyTorch and back.

What penstock writes is read by PyTorch's own reader, passes its validation and lowering, and trains in its runtime on two
processes to the gradients of one: every family whose stages have one holder, as computed and as lowered. What PyTorch dumps, as
computed and as lowered, is read, verified, simulated and drawn here and written again cell for cell. Usage: torch_exchange_test.py PATH_OF_schedule_exchange. Exit code 77: there is no PyTorch 2.13 or later.
"""

import csv
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
    print(f"skipped: no PyTorch to exchange schedules with ({error})")
    sys.exit(77)

SINGLE_HOLDER = [
    "naive", "gpipe", "1f1b", "interleaved-1f1b", "looped-bfs", "hanayo", "zb-h1", "zb-h2", "interleaved-zb", "zb-v",
    "v-half", "v-min", "dualpipev",
]
MICROBATCHES = 4
WIDTH = 6


def exchange(*arguments):
    done = subprocess.run([EXCHANGE, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


def rows_of(text):
    return {rank: [pipelining._Action.from_str(cell) for cell in row] for rank, row in enumerate(csv.reader(text.splitlines()))}


def from_penstock():
    for name in SINGLE_HOLDER:
        for ranks, microbatches in [(2, 2), (4, 4), (4, 9), (4, 3)]:
            rows = rows_of(exchange("write", name, ranks, microbatches))
            stages = 1 + max(part.stage_index for row in rows.values() for action in row
                             for part in (action.sub_actions or (action,)))
            mapping = pipelining._validate_schedule(rows, ranks, stages, microbatches)
            comms = {rank: pipelining._add_reduce_grad(list(row), microbatches) for rank, row in rows.items()}
            comms = pipelining._add_send_recv(comms, lambda stage: mapping[stage], stages)
            assert comms, name
            lowered = rows_of(exchange("write", name, ranks, microbatches, "lowered"))
            flat = {rank: [part for action in row for part in (action.sub_actions or (action,))] for rank, row in lowered.items()}
            pipelining._simulate_comms_compute(flat, lambda stage: mapping[stage], stages)
    print(f"{len(SINGLE_HOLDER)} families validated and simulated by PyTorch")


class Recipe:
    """As much of a schedule object as PyTorch's generators look at, without process groups."""

    def __init__(self, kind, ranks, microbatches, local):
        self.made = object.__new__(kind)
        made = self.made
        made.pp_group_size, made._n_microbatches, made._num_stages = ranks, microbatches, ranks * local
        made.num_stages, made.n_local_stages, made._stages = ranks * local, local, [None] * local
        made.number_of_rounds = max(1, microbatches // ranks)
        made.microbatches_per_round = microbatches // made.number_of_rounds
        made.pipeline_order = {rank: made._calculate_single_rank_operations(rank) for rank in range(ranks)}
        if hasattr(made, "_add_bubbles_to_actions"):
            made.pipeline_order = made._add_bubbles_to_actions(ranks * local)


def check_read(file, options):
    with open(file, newline="") as dumped:
        text = dumped.read()
    assert exchange("read", file, *options) == text.replace("\r\n", "\n"), f"{file} is not written as it was read"


def to_penstock(folder):
    kinds = [pipelining.ScheduleInterleaved1F1B, pipelining.ScheduleLoopedBFS, pipelining.ScheduleInterleavedZeroBubble,
             pipelining.ScheduleZBVZeroBubble, pipelining.ScheduleDualPipeV]
    file = os.path.join(folder, "dump.csv")
    for kind in kinds:
        for ranks, microbatches in [(2, 4), (4, 8), (4, 12)]:
            made = Recipe(kind, ranks, microbatches, 2).made
            # PyTorch's looped BFS goes backwards through the microbatches, which penstock reads but does not run.
            options = ["any-order"] if kind is pipelining.ScheduleLoopedBFS else []
            made._dump_csv(file, format="compute_only")
            check_read(file, options)
            mapping = pipelining._validate_schedule(made.pipeline_order, ranks, 2 * ranks, microbatches)
            comms = {rank: pipelining._add_reduce_grad(pipelining._add_unshard_reshard(list(row)), microbatches)
                     for rank, row in made.pipeline_order.items()}
            made.pipeline_order_with_comms = pipelining._add_send_recv(comms, lambda stage: mapping[stage], 2 * ranks)
            made._dump_csv(file)
            check_read(file, options)
    # Of the schedules of one stage a rank PyTorch dumps none. GPipe's order is right; 1F1B's, which PyTorch 2.13 only draws and
    # does not run, counts the last rank's forwards from 1, and the verifier refuses it.
    made = object.__new__(pipelining.ScheduleGPipe)
    made._num_stages, made._n_microbatches = 4, 8
    with open(file, "w", newline="") as out:
        csv.writer(out).writerows(made._get_pipeline_order().values())
    check_read(file, [])
    print(f"{len(kinds)} of PyTorch's schedules read, computed and lowered, and GPipe")


def layer(stage):
    torch.manual_seed(stage)
    return torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh())


def train_one(rank, file, lowered):
    rows = rows_of(open(file, newline="").read())
    mapping = pipelining._validate_schedule(rows, 2, 1 + max(
        part.stage_index for row in rows.values() for action in row for part in (action.sub_actions or (action,))), MICROBATCHES)
    mine = sorted(stage for stage, holder in mapping.items() if holder == rank)
    modules = {stage: layer(stage) for stage in mine}
    stages = [PipelineStage(modules[stage], stage, len(mapping), torch.device("cpu")) for stage in mine]
    schedule = pipelining._PipelineScheduleRuntime(stages, MICROBATCHES, loss_fn=torch.nn.functional.mse_loss)
    schedule._load_csv(file, format="compute_comms" if lowered else "compute_only")
    torch.manual_seed(99)
    inputs, targets = torch.randn(8, WIDTH), torch.randn(8, WIDTH)
    schedule.step(*([inputs] if 0 in mine else []), **({"target": targets} if len(mapping) - 1 in mine else {}))
    whole = torch.nn.Sequential(*(layer(stage) for stage in range(len(mapping))))
    torch.nn.functional.mse_loss(whole(inputs), targets).backward()
    # PyTorch divides the sum of the microbatches' gradients in REDUCE_GRAD, which only its own lowering adds.
    scale = MICROBATCHES if lowered else 1
    for stage, module in modules.items():
        for ours, expected in zip(module.parameters(), whole[stage].parameters(), strict=True):
            torch.testing.assert_close(ours.grad, expected.grad * scale, msg=lambda text: f"{file}, stage {stage}: {text}")


def train(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for name in SINGLE_HOLDER:
        train_one(rank, f"{folder}/{name}.csv", False)
        train_one(rank, f"{folder}/{name}-lowered.csv", True)
    dist.destroy_process_group()


if __name__ == "__main__":
    EXCHANGE = sys.argv[1]
    with tempfile.TemporaryDirectory() as scratch:
        from_penstock()
        to_penstock(scratch)
        for family in SINGLE_HOLDER:
            for suffix, options in [("", []), ("-lowered", ["lowered"])]:
                with open(f"{scratch}/{family}{suffix}.csv", "w") as written:
                    written.write(exchange("write", family, 2, MICROBATCHES, *options))
        torch.multiprocessing.spawn(train, args=(scratch,), nprocs=2)
        print(f"{len(SINGLE_HOLDER)} families trained in PyTorch's runtime to the gradients of one process, computed and lowered")
