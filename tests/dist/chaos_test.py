"""Runs in several processes of which some are killed or stopped: they end by themselves, with the same bits."""

import os
import random
import shutil
import signal
import time
import unittest

import penstock_process as p

SEED = int(os.environ.get("PENSTOCK_CHAOS_SEED", "60"))
RUNS = int(os.environ.get("PENSTOCK_CHAOS_RUNS", "10"))


class Chaos(p.Case):
    def test_whatever_is_killed_or_stopped(self):
        """A random rank is killed or stopped at a random moment, in a step, a save, a rendezvous or a restart."""
        undisturbed = self.must_train(self.folder / "undisturbed", stages=4)
        draw = random.Random(SEED)
        print(f"seed {SEED}, {RUNS} runs")
        for number in range(RUNS):
            elastic = draw.random() < 0.5
            out = self.folder / f"run-{number}"
            settings = {**p.SMALL, "data": self.text, "out": out, "stages": 4, "processes": 4, "restarts": 8,
                        "elastic": elastic, "peer-timeout": 2, "join-timeout": 10}
            launcher = p.start("train", *p.flags(settings))
            seen, told = set(), []
            for _ in range(draw.choice([1, 1, 2])):
                if draw.random() < 0.7:
                    p.wait_for_step(launcher, out, draw.randrange(p.SMALL["steps"]))
                time.sleep(draw.random() * 0.3)
                workers = p.workers_of(launcher.pid)
                seen |= set(workers.values())
                if not workers:
                    continue
                rank = draw.choice(sorted(workers))
                how = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP])
                told.append(f"{how.name} rank {rank}")
                try:
                    os.kill(workers[rank], how)
                except ProcessLookupError:
                    told.append("(gone)")
            _, err = launcher.communicate(timeout=240)
            with self.subTest(run=number, elastic=elastic, told=told):
                self.assertEqual(launcher.returncode, 0, err)
                self.assertEqual(p.losses(out), p.losses(undisturbed), err)
                self.assertEqual(p.tensors(out, p.SMALL["steps"]), p.tensors(undisturbed, p.SMALL["steps"]))
                self.assertEqual([process for process in seen if p.is_there(process)], [])
                left = sorted(path.name for path in (out / "checkpoints").iterdir() if not path.name.startswith("step-"))
                self.assertEqual(left, [])
            shutil.rmtree(out)

    def test_a_stop_is_saved_by_all(self):
        undisturbed = self.must_train(self.folder / "undisturbed", stages=4)
        out = self.folder / "stopped"
        settings = {**p.SMALL, "data": self.text, "out": out, "stages": 4, "processes": 4}
        launcher = p.start("train", *p.flags(settings))
        p.wait_for_step(launcher, out, 3)
        launcher.send_signal(signal.SIGTERM)
        _, err = launcher.communicate(timeout=60)
        self.assertIn(launcher.returncode, (0, 143), err)
        code, _, err = p.run("train", "--resume", "--out", out)
        self.assertEqual(code, 0, err)
        self.assertEqual(p.losses(out), p.losses(undisturbed))

    def test_a_stopped_rank_is_named_with_who_waits_for_it(self):
        out = self.folder / "hung"
        settings = {**p.SMALL, "data": self.text, "out": out, "stages": 4, "processes": 4, "peer-timeout": 1,
                    "steps": 100000, "checkpoint-every": 0}
        launcher = p.start("train", *p.flags(settings))
        p.wait_for_step(launcher, out, 3)
        os.kill(p.workers_of(launcher.pid)[2], signal.SIGSTOP)
        _, err = launcher.communicate(timeout=60)
        self.assertEqual(launcher.returncode, 1, err)
        self.assertRegex(err, r"process 2 \(rank 2\) is lost: it has said nothing for 1\.0 s")
        # It may have stopped in the middle of an action of the others, at the update, or where all ranks speak to each other.
        self.assertRegex(err, r"rank \d, stage \d, microbatch \d, action \w+: waits for rank \d"
                              r"|rank \d, (step \d+, at the update|outside a step): waits for the other ranks")


if __name__ == "__main__":
    unittest.main()
