"""What a slow link between two nodes costs: two processes in network namespaces, 25 ms each way and 100 Mbit/s.

For each number of microbatches the measured utilisation over the link stands beside that of the simulator, which is
given the times of the passes as they were over loopback and the same link. Needs root.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "dist"))
import slow_link  # noqa: E402

DELAY_MS, MBIT_PER_S = 25, 100
SCHEDULE, STAGES, CONTEXT, WIDTH, BATCH = "1f1b", 2, 64, 128, 32


class Failed(Exception):
    pass


def finished(processes):
    for process in processes:
        _, err = process.communicate(timeout=600)
        if process.returncode != 0:
            raise Failed(err.strip().splitlines()[-1])


def train(penstock, folder, microbatches, steps, befores, dtype):
    """Two ranks, each started behind one of `befores`. The run's folder."""
    out = pathlib.Path(tempfile.mkdtemp(dir=folder))
    command = [penstock, "train", "--data", str(folder / "text"), "--out", str(out / "run"), "--layers", "8", "--width",
               str(WIDTH), "--heads", "4", "--context", str(CONTEXT), "--batch", str(BATCH), "--stages", str(STAGES),
               "--schedule", SCHEDULE, "--microbatches", str(microbatches), "--threads-per-rank", "1", "--steps",
               str(steps), "--eval-every", "0", "--checkpoint-every", "0", "--held-out", "0", "--boundary-dtype", dtype]
    finished([subprocess.Popen([*before, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, text=True,
                               stderr=subprocess.PIPE,
                               env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_PORT": "29517",
                                    "MASTER_ADDR": slow_link.ADDRESSES[0] if before else "127.0.0.1"})
              for rank, before in enumerate(befores)])
    return out / "run"


def median(run, name):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(line[name] for line in lines[2:])


def pass_times(run):
    """By stage: the median times of a forward and a backward pass, in ms."""
    times = {}
    for event in json.loads((run / "timeline.json").read_text())["traceEvents"]:
        found = re.fullmatch(r"(\d+)(F|B)\d+", event.get("name", ""))
        if found:
            times.setdefault((int(found[1]), found[2]), []).append(event["dur"] / 1000)
    return [(statistics.median(times[stage, "F"]), statistics.median(times[stage, "B"])) for stage in range(STAGES)]


def simulated(penstock, folder, microbatches, passes, boundary_bytes):
    cost, schedule = folder / "cost.json", folder / "schedule.csv"
    link = {"latency_ms": DELAY_MS, "bandwidth_bytes_per_ms": MBIT_PER_S * 1e6 / 8 / 1000}
    cost.write_text(json.dumps({"link": link, "stages": [
        {"forward_ms": forward, "input_backward_ms": backward, "weight_backward_ms": 0, "boundary_bytes": boundary_bytes}
        for forward, backward in passes]}))
    subprocess.run([penstock, "schedule", "show", SCHEDULE, "--ranks", str(STAGES), "--microbatches", str(microbatches),
                    "--format", "csv", "-o", str(schedule)], check=True, capture_output=True)
    done = subprocess.run([penstock, "simulate", str(schedule), "--cost", str(cost), "--json"], check=True,
                          capture_output=True, text=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--penstock", required=True, metavar="PROGRAM")
    parser.add_argument("--steps", type=int, default=12)
    settings = parser.parse_args()
    why_not = slow_link.why_not()
    if why_not:
        print(f"network: not measured: {why_not}")
        return 0
    penstock = str(pathlib.Path(settings.penstock).resolve())
    print("| M | boundary | loopback, ms | over the link, ms | simulated, ms | utilisation, measured | simulated | hidden |")
    print("|--:|---|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory(prefix="penstock-network-") as temporary, slow_link.SlowLink(DELAY_MS, MBIT_PER_S) as link:
        folder = pathlib.Path(temporary)
        (folder / "text").write_text(" ".join(f"pipeline stage {number % 97} bubble" for number in range(20000)))
        for microbatches, dtype in ((4, "same"), (8, "same"), (16, "same"), (16, "bf16")):
            near = train(penstock, folder, microbatches, settings.steps, ([], []), dtype)
            far = train(penstock, folder, microbatches, settings.steps, (link.at(0), link.at(1)), dtype)
            boundary = BATCH // microbatches * CONTEXT * WIDTH * (4 if dtype == "same" else 2)
            expected = simulated(penstock, folder, microbatches, pass_times(near), boundary)
            hidden = " ".join(f"{100 * way['hidden']:.0f} %" for way in json.loads((far / "links.json").read_text()))
            print(f"| {microbatches} | {dtype} | {median(near, 'step_ms'):.0f} | {median(far, 'step_ms'):.0f} | "
                  f"{expected['makespan_ms']:.0f} | {100 * median(far, 'utilisation'):.1f} % | "
                  f"{100 * (1 - expected['bubble_makespan']):.1f} % | {hidden} |", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failed, subprocess.CalledProcessError) as failure:
        print(f"network: error: {failure}", file=sys.stderr)
        sys.exit(1)
