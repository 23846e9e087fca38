"""penstock and torch.distributed.pipelining in turn, step by step or row of steps by row: same network, weights, data and schedule.

Prints a Markdown table of the medians and their ratios. Ends with 1 where a loss differs by more than 1e-4
of it, and where a side fails. Both sides have one thread a rank; penstock's ranks are threads, or with
--processes processes as the peer's are, which talk through Gloo on loopback. With --python-layers penstock's layers
are the peer's own modules, and what they wait for the interpreter's lock is told too.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import select
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable

HERE = pathlib.Path(__file__).resolve().parent
TOLERANCE = 1e-4
WARM_UP = 3
# Of an answer, in seconds: a peer that waits for itself is told from one that starts slowly.
PATIENCE = 120


# "of …": penstock's time as a share of the peer's. The last column is the share of the processors that other
# programs took meanwhile: with more than a few hundredths the figures tell of them, not of the sides.
# "half of pairs": between which ratios the middle half of them lies.
HEADING = """\
| network | schedule | stages | M | penstock, ms | torch, ms | of medians | of pairs | half of pairs | of fastest | others |
|---|---|---|---|---|---|---|---|---|---|---|"""


class Refused(Exception):
    """A side does not take this combination of schedule and sizes."""


class Failed(Exception):
    """A side ended or hung, or the losses differ."""


@dataclasses.dataclass(frozen=True)
class Case:
    network: str
    schedule: str
    microbatches: int
    batch: int
    layers: int
    width: int
    ranks: int = 2
    stages_per_rank: int = 1
    heads: int = 4
    context: int = 64
    vocabulary: int = 256
    learning_rate: float = 0.01
    momentum: float = 0

    def flags(self, *names: str) -> list[str]:
        pairs = [(f"--{name.replace('_', '-')}", str(getattr(self, name))) for name in names]
        return [text for pair in pairs for text in pair]


SHARED = ("network", "schedule", "microbatches", "layers", "width", "heads", "context", "vocabulary",
          "ranks", "learning_rate", "momentum")


def gpt(schedule: str, microbatches: int, stages_per_rank: int = 1) -> Case:
    return Case("gpt", schedule, microbatches, batch=32, layers=8, width=128,
                stages_per_rank=stages_per_rank)


def linear(schedule: str) -> Case:
    """Next to nothing is computed: what is left is what a microbatch costs beside it."""
    return Case("linear", schedule, 64, batch=64, layers=4, width=4)


def all_cases() -> list[Case]:
    cases = [gpt("1f1b", microbatches) for microbatches in (2, 4, 8, 16, 32)]
    for microbatches in (8, 16):
        cases.append(gpt("gpipe", microbatches))
        for schedule in ("interleaved-1f1b", "looped-bfs", "interleaved-zb", "zb-v", "dualpipev"):
            cases.append(gpt(schedule, microbatches, stages_per_rank=2))
    return cases + [linear("1f1b"), linear("gpipe")]


def process_cases() -> list[Case]:
    return [gpt("1f1b", microbatches) for microbatches in (4, 8, 16, 32)] + [linear("1f1b"), linear("gpipe")]


def python_cases() -> list[Case]:
    return [gpt("1f1b", 8), gpt("1f1b", 16)]


def quick_cases() -> list[Case]:
    return [gpt("1f1b", 8), gpt("1f1b", 16), linear("1f1b")]


class Process:
    """A program that answers each line with one line of JSON, and sleeps between them."""

    def __init__(self, command: list[str], log: pathlib.Path) -> None:
        self.log = log
        try:
            with open(log, "w") as errors:
                self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                                stderr=errors, env={**os.environ, "OMP_NUM_THREADS": "1"})
        except OSError as error:
            raise Failed(f"{command[0]} cannot be started: {error.strerror}") from error

    def tell(self, line: str) -> None:
        try:
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # Its answer, which is none, says it better.

    def answer(self) -> dict:
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            happened = "ended" if ready else f"did not answer for {PATIENCE} s"
            words = self.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise Failed(f"{pathlib.Path(self.process.args[0]).name} {happened}: {words[-1]}")
        return json.loads(line)

    def processor_seconds(self) -> float:
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Side:
    """One or more processes that do a training step together."""

    def __init__(self, commands: list[list[str]], folder: pathlib.Path, name: str) -> None:
        self.processes = [Process(command, folder / f"{name}-{rank}.log")
                          for rank, command in enumerate(commands)]
        self.name = name
        self.ready: dict = {}
        self.lock: list[float] = []  # by row, milliseconds a step that all layers waited for an interpreter's lock
        self.forward: list[float] = []  # by row, milliseconds of all forward passes of a step

    def wait_until_ready(self) -> None:
        for process in reversed(self.processes):
            self.ready = process.answer()
            if "refused" in self.ready:
                raise Refused(f"{self.name} refuses: {self.ready['refused']}")

    def row(self, steps: int) -> tuple[float, float]:
        """The last loss and milliseconds a step, from the first rank's start to the last one's end."""
        for process in self.processes:
            process.tell(str(steps))
        answers = [process.answer() for process in self.processes]
        (loss,) = [found["loss"] for found in answers if "loss" in found]
        whole = max(found["end"] for found in answers) - min(found["start"] for found in answers)
        self.lock.append(sum(found.get("lock", 0.0) for found in answers))
        self.forward.append(sum(found.get("forward", 0.0) for found in answers))
        return loss, whole / steps

    def processor_seconds(self) -> float:
        return sum(process.processor_seconds() for process in self.processes)

    def close(self) -> None:
        for process in self.processes:
            process.close()


@dataclasses.dataclass
class Measured:
    penstock: list[float] = dataclasses.field(default_factory=list)
    torch: list[float] = dataclasses.field(default_factory=list)
    difference: float = 0  # of the losses, the largest, relative
    others: float = 0  # share of the processors that neither side had
    lock: float = 0  # milliseconds a step
    forward: float = 0  # milliseconds a step


class Processors:
    """Whose the processors are from now on."""

    def __init__(self, sides: Iterable[Side]) -> None:
        self.sides = list(sides)
        self.start = self.read()

    def read(self) -> tuple[float, float, float]:
        """Seconds since some start: all of them, those that were used, and those that the sides used."""
        with open("/proc/stat") as stat:
            seconds = [int(field) / os.sysconf("SC_CLK_TCK") for field in stat.readline().split()[1:9]]
        idle = seconds[3] + seconds[4]
        return sum(seconds), sum(seconds) - idle, sum(side.processor_seconds() for side in self.sides)

    def others(self) -> float:
        total, used, own = (now - then for now, then in zip(self.read(), self.start))
        return max(0.0, used - own) / total


def start_torch(case: Case, python: str, cut: list[int], folder: pathlib.Path) -> Side:
    command = [python, str(HERE / "torch_peer.py"), *case.flags(*SHARED), "--cut", ",".join(map(str, cut)),
               "--tensors", str(folder / "tensors"), "--meeting", str(folder / "meeting")]
    return Side([command + ["--rank", str(rank)] for rank in range(case.ranks)], folder, "torch")


def start_penstock(case: Case, program: list[str], processes: bool, folder: pathlib.Path) -> Side:
    command = [*program, *case.flags(*SHARED, "batch", "stages_per_rank"), "--tensors", str(folder / "tensors")]
    if not processes:
        return Side([command], folder, "penstock")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    command += ["--processes", str(case.ranks), "--port", str(port)]
    return Side([command + ["--process", str(rank)] for rank in range(case.ranks)], folder, "penstock")


def alternate(case: Case, sides: dict[str, Side], steps: int, row: int) -> Measured:
    measured = Measured()
    processors = Processors(sides.values())
    for number in range(WARM_UP + steps):
        found = {}
        for name in ("penstock", "torch") if number % 2 == 0 else ("torch", "penstock"):
            found[name] = sides[name].row(row)
        ours, theirs = found["penstock"][0], found["torch"][0]
        difference = abs(ours - theirs) / abs(theirs)
        if not difference <= TOLERANCE:
            raise Failed(f"step {number} of {case.network}, {case.schedule}, M = {case.microbatches}: the "
                         f"losses {ours:.9g} and {theirs:.9g} differ by {difference:.1e} of it, expected at "
                         f"most {TOLERANCE:.0e}")
        measured.difference = max(measured.difference, difference)
        if number >= WARM_UP:
            measured.penstock.append(found["penstock"][1])
            measured.torch.append(found["torch"][1])
    measured.others = processors.others()
    measured.lock = statistics.median(sides["penstock"].lock[WARM_UP:])
    measured.forward = statistics.median(sides["penstock"].forward[WARM_UP:])
    return measured


def program_of(settings: argparse.Namespace) -> list[str]:
    return [settings.python, str(HERE / "python_peer.py")] if settings.python_layers else [settings.penstock]


def measure(case: Case, settings: argparse.Namespace) -> Measured:
    with tempfile.TemporaryDirectory(prefix="penstock-peer-") as temporary:
        folder = pathlib.Path(temporary)
        sides = {}
        try:
            sides["penstock"] = start_penstock(case, program_of(settings), settings.processes, folder)
            sides["penstock"].wait_until_ready()
            sides["torch"] = start_torch(case, settings.python, sides["penstock"].ready["cut"], folder)
            sides["torch"].wait_until_ready()
            return alternate(case, sides, settings.steps, settings.row)
        finally:
            for side in sides.values():
                side.close()


def row(case: Case, measured: Measured) -> str:
    ours, theirs = statistics.median(measured.penstock), statistics.median(measured.torch)
    ratios_of_pairs = [mine / its for mine, its in zip(measured.penstock, measured.torch)]
    pairs = statistics.median(ratios_of_pairs)
    lower, _, upper = statistics.quantiles(ratios_of_pairs, n=4)
    fastest = min(measured.penstock) / min(measured.torch)
    times = f"{ours:.2f} | {theirs:.2f}"
    ratios = f"{ours / theirs:.3f} | {pairs:.3f} | {lower:.3f}–{upper:.3f} | {fastest:.3f}"
    return f"| {name_of(case)} | {times} | {ratios} | {measured.others:.2f} |"


def name_of(case: Case) -> str:
    return f"{case.network} | {case.schedule} | {case.ranks * case.stages_per_rank} | {case.microbatches}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    side = parser.add_mutually_exclusive_group(required=True)
    side.add_argument("--penstock", metavar="PROGRAM", help="the program penstock_peer")
    side.add_argument("--python-layers", action="store_true",
                      help="penstock as a Python package, with the peer's modules as layers; PYTHONPATH says where it is")
    parser.add_argument("--python", default=sys.executable,
                        help="a Python that has PyTorch 2.13 (default: this one)")
    parser.add_argument("--steps", type=int, default=20, help="measured steps, or rows, of each (default: 20)")
    parser.add_argument("--row", type=int, default=1,
                        help="steps in a row, without a barrier between them, for each measurement (default: 1)")
    parser.add_argument("--processes", action="store_true",
                        help="each of penstock's ranks is a process too; only 1F1B, and linear")
    parser.add_argument("--quick", action="store_true", help="only 1F1B: gpt with M = 8 and 16, and linear")
    parser.add_argument("--schedule", help="only the cases of this schedule")
    return parser.parse_args()


def main() -> int:
    settings = parse()
    chosen = all_cases()
    if settings.python_layers:
        chosen = python_cases()
    elif settings.quick:
        chosen = quick_cases()
    elif settings.processes:
        chosen = process_cases()
    cases = [case for case in chosen if settings.schedule in (None, case.schedule)]
    print(HEADING, flush=True)
    largest = 0.0
    locks: list[str] = []
    for case in cases:
        try:
            measured = measure(case, settings)
        except Refused as refusal:
            print(f"| {name_of(case)} | – | – | – | – | – | – | {refusal} |", flush=True)
            continue
        except Failed as failure:
            print(f"peer: error: {failure}", file=sys.stderr)
            return 1
        print(row(case, measured), flush=True)
        if settings.python_layers:
            ours = case.ranks * statistics.median(measured.penstock)
            locks.append(f"M = {case.microbatches}: all forward passes took {measured.forward:.1f} ms a step; before they began "
                         f"their layers waited {measured.lock:.1f} ms for an interpreter's lock, {100 * measured.lock / ours:.1f} % "
                         "of the ranks' time")
        largest = max(largest, measured.difference)
    print(f"\n{settings.steps} times {settings.row} steps of each; the losses differ by at most {largest:.1e} of it")
    for line in locks:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
