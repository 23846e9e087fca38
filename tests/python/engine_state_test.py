"""Weights, checkpoints, memory and reference counts."""

import gc
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import textwrap
import threading
import unittest
import weakref
from pathlib import Path

import penstock as ps
import torch
from networks import gpt, minibatch, sum_and_weight
from torch import nn

torch.set_num_threads(1)
STEPS = int(os.environ.get("PENSTOCK_STEPS", "1000"))


def pipeline(layers=None, schedule="1f1b", ranks=2, **settings):
    settings.setdefault("optimizer", ps.AdamW(lr=1e-2))
    return ps.Pipeline(layers or gpt(), sum_and_weight, schedule=schedule, ranks=ranks, microbatches=4, **settings)


def losses(pipe, first, last):
    return [pipe.step(*minibatch(seed=step)).loss for step in range(first, last)]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class State(unittest.TestCase):
    def test_names_are_those_of_a_sequential(self):
        layers = gpt()
        with pipeline(layers) as pipe:
            losses(pipe, 0, 2)
            state = pipe.state_dict()
            model = nn.Sequential(*gpt())
            model.load_state_dict(state)
            # The modules are those that were given, with the trained weights.
            self.assertTrue(same(state, nn.Sequential(*layers).state_dict()))
            self.assertIs(pipe.layer(0), layers[0])
        with pipeline() as other:
            other.load_state_dict(state)
            self.assertTrue(same(other.state_dict(), state))
            with self.assertRaisesRegex(ps.BadInput, "x.weight"):
                other.load_state_dict({"x.weight": torch.ones(1)})
            with self.assertRaisesRegex(ps.BadInput, "does not fit layer"):
                other.load_state_dict({**state, "0.token.weight": torch.ones(3, 3)})

    def resumes(self, **settings):
        with tempfile.TemporaryDirectory() as folder:
            with pipeline(ranks=2, **settings) as pipe:
                losses(pipe, 0, 3)
                pipe.save(folder)
                expected = losses(pipe, 3, 6)
                state = pipe.state_dict()
            for schedule, ranks in [("1f1b", 1), ("zb-v", 2), ("1f1b", 4)]:
                with pipeline(schedule=schedule, ranks=ranks, **settings) as pipe:
                    self.assertEqual(pipe.load(folder), 3)
                    self.assertEqual(pipe.steps, 3)
                    self.assertEqual(losses(pipe, 3, 6), expected, (schedule, ranks))
                    self.assertTrue(same(pipe.state_dict(), state))
            with pipeline(**settings) as pipe:
                pipe.load(Path(folder) / "step-00000003", optimizer=False)
                self.assertNotEqual(losses(pipe, 3, 6), expected)

    def test_results_are_values(self):
        x, y = minibatch(8)
        results = []
        for _ in range(2):
            with pipeline() as pipe:
                results.append(pipe.step(x, y, outputs=True))
                evaluation = pipe.evaluate(x, y)
                other = pipe.step(x, y, outputs=True)
        self.assertEqual(results[0], results[1])
        self.assertNotEqual(results[0], other)
        self.assertNotEqual(results[0], results[0].loss)
        back = pickle.loads(pickle.dumps(results[0]))
        self.assertEqual((back, back.timeline, repr(back)), (results[0], results[0].timeline, repr(results[0])))
        self.assertEqual(pickle.loads(pickle.dumps(evaluation)), evaluation)
        report = ps.audit([nn.Linear(4, 4)], torch.ones(6, 4))
        self.assertEqual(pickle.loads(pickle.dumps(report)), report)

    def test_everything_public_says_what_it_is(self):
        for name, module in ps._OF_THE_ENGINE.items():
            self.assertTrue(getattr(ps, name).__doc__, name)
            for attribute, member in vars(getattr(ps, name)).items() if module and isinstance(getattr(ps, name), type) else ():
                if not attribute.startswith("_") and (callable(member) or isinstance(member, property)):
                    self.assertTrue(member.__doc__, f"{name}.{attribute}")

    def test_a_checkpoint_goes_on_under_any_cut(self):
        self.resumes()

    def test_with_an_optimizer_of_torch(self):
        self.resumes(
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
            scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7),
        )

    def test_ties_of_a_checkpoint(self):
        self.resumes(layers=None, ties=[("0.token.weight", "7.linear.weight")])

    def test_there_is_no_checkpoint(self):
        with tempfile.TemporaryDirectory() as folder, pipeline() as pipe:
            with self.assertRaisesRegex(ps.BadInput, "no whole checkpoint"):
                pipe.load(folder)
            pipe.save(folder)
            with ps.Pipeline(gpt(blocks=7), sum_and_weight, ranks=2, microbatches=4) as other:
                with self.assertRaisesRegex(ps.BadInput, "checkpoint holds"):
                    other.load(folder)


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Rest(unittest.TestCase):
    def test_many_steps_leave_memory_threads_and_references_at_rest(self):
        x, y = torch.randn(8, 4), torch.zeros(8, 4)
        layers = [nn.Linear(4, 4) for _ in range(4)]
        loss = lambda output, target: (output - target).square().mean()  # noqa: E731
        pipe = ps.Pipeline(layers, loss, schedule="zb-h1", ranks=2, microbatches=4, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3))

        def observed():
            gc.collect()
            objects = len(gc.get_objects())
            return objects, [sys.getrefcount(o) for o in (x, y, loss, *layers, *(p for l in layers for p in l.parameters()))]

        for _ in range(STEPS // 10):
            pipe.step(x, y, outputs=True)
        before, threads, memory = observed(), threading.active_count(), resident_bytes()
        for _ in range(STEPS):
            pipe.step(x, y, outputs=True)
        after = observed()
        self.assertEqual(after[1], before[1])
        self.assertLess(abs(after[0] - before[0]), 50)
        self.assertEqual(threading.active_count(), threads)
        self.assertLess(resident_bytes() - memory, 8 << 20)
        kept = [weakref.ref(layer) for layer in layers]
        pipe.close()
        del pipe, layers
        gc.collect()
        self.assertEqual([layer() for layer in kept], [None] * 4)


    @unittest.skipUnless(platform.libc_ver()[0] == "glibc", "what memory costs is known of glibc alone")
    def test_a_step_takes_the_memory_that_the_last_one_has_freed(self):
        # In a process that has freed no large block yet.
        code = """
            import resource
            import penstock as ps
            import torch
            from torch import nn

            torch.set_num_threads(1)
            layers = [nn.Sequential(nn.Linear(256, 256), nn.Tanh()) for _ in range(8)]
            x = torch.ones(4096, 256)
            with ps.Pipeline(layers, nn.functional.mse_loss, ranks=1, microbatches=4) as pipe:
                for _ in range(3):
                    pipe.step(x, x)
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                for _ in range(4):
                    pipe.step(x, x)
                print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        """
        ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        # A step's tensors are 16 MiB and more, 4096 pages.
        self.assertLess(int(ended.stdout), 1000)


if __name__ == "__main__":
    unittest.main()
