"""Checkpoints of the command line and of Python go on in each other, to the same bits."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import penstock as ps
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
# The modules that have the names of the command line's gpt.
sys.path.insert(0, str(ROOT / "benchmarks" / "peer"))
from torch_peer import make_layer  # noqa: E402

torch.set_num_threads(1)
COMMAND = os.environ.get("PENSTOCK")
SIZES = argparse.Namespace(network="gpt", layers=3, width=32, heads=4, context=16, vocabulary=256)
BATCH, MICROBATCHES, LAST = 8, 4, 6


def loss(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"), targets.numel()


def pipeline(schedule="1f1b", ranks=2):
    layers = [make_layer(SIZES, index) for index in range(SIZES.layers + 2)]
    optimizer = ps.AdamW(lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    return ps.Pipeline(layers, loss, schedule=schedule, ranks=ranks, microbatches=MICROBATCHES, optimizer=optimizer, clip=1.0)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@unittest.skipUnless(COMMAND, "PENSTOCK, the command line's program, is not set")
class CommandLine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.scratch = Path(scratch.name)
        # Every window of it is the same, so that the order of the samples is of no importance.
        (cls.scratch / "text.txt").write_bytes(b"a" * 8192)
        cls.x = cls.y = torch.full((BATCH, SIZES.context), ord("a"))
        cls.whole = cls.scratch / "whole"
        cls.train(
            "--data", cls.scratch / "text.txt", "--model", "gpt", "--layers", SIZES.layers, "--width", SIZES.width, "--heads", SIZES.heads,
            "--context", SIZES.context, "--stages", 2, "--batch", BATCH, "--microbatches", MICROBATCHES, "--steps", LAST, "--optimizer", "adamw",
            "--learning-rate", 0.01, "--final-learning-rate", 1, "--warmup", 0, "--weight-decay", 0.1, "--beta1", 0.9, "--beta2", 0.95,
            "--epsilon", 1e-8, "--clip", 1, "--dropout", 0, "--checkpoint-every", 3, "--keep", 10, "--threads-per-rank", 1, "--out", cls.whole,
        )  # fmt: skip
        with pipeline() as pipe:
            assert pipe.load(cls.whole) == LAST
            cls.trained = pipe.state_dict()

    @staticmethod
    def train(*options):
        ended = subprocess.run([COMMAND, "train", *map(str, options)], capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stderr[-3000:]

    def test_python_goes_on_with_the_command_lines_bits(self):
        lines = [json.loads(line) for line in (self.whole / "metrics.jsonl").read_text().splitlines()]
        expected = {line["step"]: line["loss"] for line in lines if "loss" in line}
        for schedule, ranks in [("1f1b", 1), ("1f1b", 2), ("zb-v", 2)]:
            with pipeline(schedule, ranks) as pipe:
                self.assertEqual(pipe.load(self.whole / "checkpoints" / "step-00000003"), 3)
                for step in range(4, LAST + 1):
                    self.assertAlmostEqual(pipe.step(self.x, self.y).loss, expected[step], delta=1e-6 * expected[step])
                self.assertTrue(same(pipe.state_dict(), self.trained), f"{schedule} on {ranks}")

    def test_the_command_line_goes_on_with_pythons(self):
        out = self.scratch / "through_python"
        shutil.copytree(self.whole, out)
        for step in ("step-00000003", "step-00000006"):
            shutil.rmtree(out / "checkpoints" / step)
        with pipeline("zb-v") as pipe:
            pipe.load(self.whole / "checkpoints" / "step-00000003")
            pipe.step(self.x, self.y)
            pipe.save(out / "checkpoints")
        self.train("--resume", "--out", out)
        with pipeline() as pipe:
            self.assertEqual(pipe.load(out), LAST)
            self.assertTrue(same(pipe.state_dict(), self.trained))

    def test_one_that_began_in_python_is_refused_in_one_line(self):
        out = self.scratch / "from_python"
        shutil.copytree(self.whole, out)
        shutil.rmtree(out / "checkpoints")
        with pipeline() as pipe:
            pipe.step(self.x, self.y)
            pipe.save(out / "checkpoints")
        ended = subprocess.run([COMMAND, "train", "--resume", "--out", str(out)], capture_output=True, text=True, timeout=300)
        self.assertEqual(ended.returncode, 2, ended.stderr)
        self.assertIn("are not those of a penstock run", ended.stderr)
        self.assertEqual(len(ended.stderr.splitlines()), 1)


if __name__ == "__main__":
    unittest.main()
