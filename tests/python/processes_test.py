"""The same script in several processes: the bits of threads, and what ends one ends all."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import penstock as ps
import torch
from networks import gpt, minibatch, sum_and_weight
from torch import nn
from torchrun import torchrun

torch.set_num_threads(1)
HERE = Path(__file__).resolve()
EXAMPLE = HERE.parents[2] / "examples" / "train_from_python.py"


def layouts():
    """Every published schedule on two ranks, and four ranks, which are two in each process."""
    named = [(family["name"], 2, 4) for family in ps.schedules() if not family["forward_only"]]
    return [*named, ("1f1b", 4, 8), ("zb-v", 4, 8)]


def pipeline(schedule, ranks, microbatches, layers=None, **settings):
    settings = {"optimizer": ps.AdamW(lr=1e-2), "clip": 0.5, **settings}
    return ps.Pipeline(layers or gpt(), sum_and_weight, schedule=schedule, ranks=ranks, microbatches=microbatches, **settings)


def trained(pipe, first=0, last=2):
    return [pipe.step(*minibatch(seed=step)).loss for step in range(first, last)]


def with_torch():
    """What has most to carry over: ties, random layers, an optimizer and a learning rate of torch, recomputation."""
    return pipeline(
        "zb-h1", 2, 4, layers=gpt(dropout=0.2, tied=True), recompute=[1, 2], seed=7,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7),
    )


def linears():
    torch.manual_seed(0)
    return [nn.Linear(4, 4) for _ in range(4)]


def square(output, target):
    return (output - target).square().mean()


# ---- what each process does


def work(folder):
    """Whatever goes well, in each of two processes of torchrun."""
    found = {"losses": {}}
    for layout in layouts():
        with pipeline(*layout) as pipe:
            found["losses"][str(layout)] = trained(pipe)
            found.update(process=pipe.process, processes=pipe.processes)
            torch.save(pipe.state_dict(), f"{folder}/{layout}.{pipe.process}")
    with with_torch() as pipe:
        trained(pipe, 0, 3)
        pipe.save(f"{folder}/checkpoints")
        found["behind"] = trained(pipe, 3, 6)
        x, y = minibatch(seed=9)
        found["evaluation"] = pipe.evaluate(x, y).loss
        outputs = pipe(x)
        result = pipe.step(x, y, outputs=True)
        found["outputs"] = [value is not None and value.sum().item() for value in (outputs, result.outputs)]
        found["known_ranks"] = [rank for rank, events in enumerate(result.timeline.events) if events]
    with with_torch() as pipe:
        found["step"] = pipe.load(f"{folder}/checkpoints")
        found["resumed"] = trained(pipe, 3, 6)
        try:
            pipe.load(f"{folder}/nothing")
        except ps.BadInput as error:
            found["no checkpoint"] = str(error)
        found["goes on"] = len(trained(pipe, 6, 7))
    made = []

    def factory(layer):
        return lambda: made.append(layer) or nn.Linear(4, 4)

    with ps.Pipeline([factory(layer) for layer in range(4)], square, ranks=2, microbatches=2) as pipe:
        pipe.step(torch.ones(4, 4), torch.ones(4, 4))
        found["made"] = made
        found["has"] = [layer for layer in range(4) if pipe.has_layer(layer)]
    Path(folder, f"{found['process']}.json").write_text(json.dumps(found))


def fail(folder):
    """What goes wrong in process 1, in each of two processes that meet at a port."""
    process = int(os.environ["RANK"])
    said = {}

    def keep(name, act):
        try:
            act()
        except ps.Error as error:
            said[name] = [type(error).__name__, str(error)]

    def other_settings():
        ps.Pipeline(linears(), square, ranks=2, microbatches=2, clip=0.25 * (1 + process))

    def a_broken_factory():
        ps.Pipeline([*linears()[:3], lambda: 1 / 0], square, ranks=2, microbatches=2)

    def a_broken_layer():
        class Breaks(nn.Linear):
            def forward(self, x):
                raise KeyError("the cupboard is bare")

        with ps.Pipeline([*linears()[:3], Breaks(4, 4)], square, ranks=2, microbatches=2) as pipe:
            pipe.step(torch.ones(4, 4), torch.ones(4, 4))

    def more_processes_than_ranks():
        ps.Pipeline(linears(), square, ranks=1, microbatches=2)

    for act in (other_settings, a_broken_factory, a_broken_layer, more_processes_than_ranks):
        keep(act.__name__, act)
    pipe = ps.Pipeline(linears(), square, ranks=2, microbatches=2)
    pipe.step(torch.ones(4, 4), torch.ones(4, 4))
    Path(folder, f"{process}.json").write_text(json.dumps(said))
    if process == 1:
        raise ValueError("no more data")
    keep("the other has ended", lambda: pipe.step(torch.ones(4, 4), torch.ones(4, 4)))
    Path(folder, f"{process}.json").write_text(json.dumps(said))


# ---- what is asked of them


class Processes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        ended = torchrun(HERE, "work", cls.folder.name)
        assert ended.returncode == 0, ended.stderr[-3000:]
        cls.found = [json.loads(Path(cls.folder.name, f"{process}.json").read_text()) for process in range(2)]

    def test_every_schedule_has_the_bits_of_threads(self):
        self.assertEqual([(found["process"], found["processes"]) for found in self.found], [(0, 2), (1, 2)])
        for layout in layouts():
            with pipeline(*layout) as pipe:
                self.assertEqual(pipe.processes, 1)
                losses, state = trained(pipe), pipe.state_dict()
            own = [torch.load(f"{self.folder.name}/{layout}.{process}") for process in range(2)]
            self.assertEqual(set(own[0]) | set(own[1]), set(state), layout)
            for process in range(2):
                self.assertEqual(self.found[process]["losses"][str(layout)], losses, layout)
                for name, tensor in own[process].items():
                    self.assertTrue(torch.equal(tensor, state[name]), f"{layout} {name}")

    def test_each_process_holds_its_own_layers(self):
        self.assertEqual([found["made"] for found in self.found], [[0, 1], [2, 3]])
        self.assertEqual([found["has"] for found in self.found], [[0, 1], [2, 3]])
        self.assertFalse(set(torch.load(f"{self.folder.name}/{('1f1b', 2, 4)}.0")) & set(torch.load(f"{self.folder.name}/{('1f1b', 2, 4)}.1")))

    def test_checkpoints_go_on_in_processes_and_in_threads(self):
        x, y = minibatch(seed=9)
        with with_torch() as pipe:
            self.assertEqual(pipe.load(f"{self.folder.name}/checkpoints"), 3)
            behind, evaluation, outputs = trained(pipe, 3, 6), pipe.evaluate(x, y).loss, pipe(x)
            of_step = pipe.step(x, y, outputs=True).outputs
        for found in self.found:
            self.assertEqual(found["step"], 3)
            self.assertEqual([found["behind"], found["resumed"]], [behind, behind])
            self.assertEqual(found["evaluation"], evaluation)
            self.assertIn("no whole checkpoint", found["no checkpoint"])
            self.assertEqual(found["goes on"], 1)
        self.assertEqual(self.found[0]["outputs"], [False, False])
        self.assertEqual(self.found[1]["outputs"], [outputs.sum().item(), of_step.sum().item()])
        self.assertEqual(self.found[0]["known_ranks"], [0, 1])

    def test_one_script_runs_in_threads_and_in_processes(self):
        def losses(ended):
            self.assertEqual(ended.returncode, 0, ended.stderr[-3000:])
            return [line.partition(",")[0] for line in ended.stdout.splitlines() if line.startswith("step")]

        alone = losses(subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=300))
        self.assertTrue(alone)
        self.assertEqual(losses(torchrun(EXAMPLE)), alone)

    def test_what_ends_one_ends_all(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        with tempfile.TemporaryDirectory() as folder:
            line = [sys.executable, str(HERE), "fail", folder]
            started = [
                subprocess.Popen(line, env={**common, "RANK": str(process)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                for process in range(2)
            ]
            ended = [process.communicate(timeout=300)[1] for process in started]
            self.assertEqual([process.returncode for process in started], [0, 1], ended)
            self.assertIn("ValueError: no more data", ended[1])
            said = [json.loads(Path(folder, f"{process}.json").read_text()) for process in range(2)]
        for of_process in said:
            kind, text = of_process["other_settings"]
            self.assertEqual(kind, "BadInput")
            self.assertIn("process 1 has clip 0.5, process 0 has clip 0.25", text)
            self.assertIn("layer 3: ZeroDivisionError", of_process["a_broken_factory"][1])
            self.assertIn("KeyError: 'the cupboard is bare'", of_process["a_broken_layer"][1])
            self.assertEqual(of_process["more_processes_than_ranks"][0], "BadInput")
        self.assertEqual(said[0]["the other has ended"], ["RunFailed", "process 1 ended with ValueError: no more data"])


if __name__ == "__main__":
    if len(sys.argv) == 3:
        {"work": work, "fail": fail}[sys.argv[1]](sys.argv[2])
    else:
        unittest.main()
