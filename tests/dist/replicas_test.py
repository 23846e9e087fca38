"""Data parallel runs: the numbers of one replica with the same minibatch, their own bits however they are started."""

import array
import json
import math
import os
import signal
import unittest

import penstock_process as p

TWO = {"replicas": 2, "stages": 2, "tied-head": True}


def floats(content):
    return array.array("f", content)


def weights(out, step):
    return {name: floats(content) for name, content in p.tensors(out, step).items() if name.startswith("layers.")}


def files(out, step):
    return sorted(file.name for file in (out / "checkpoints" / f"step-{step:08d}").glob("*.safetensors"))


class Replicas(p.Case):
    def assert_same_bits(self, one, other, step=12):
        self.assertEqual(p.losses(one), p.losses(other))
        self.assertEqual(p.tensors(one, step), p.tensors(other, step))

    def assert_close(self, one, other, step=12, of_weights=1e-6):
        """Losses within one in a million, and the weights of each parameter by their norm."""
        for (_, mine, _), (_, theirs, _) in zip(p.losses(one), p.losses(other), strict=True):
            self.assertLess(abs(mine / theirs - 1), 1e-6)
        theirs = weights(other, step)
        for name, mine in weights(one, step).items():
            off = math.dist(mine, theirs[name])
            self.assertLessEqual(off, of_weights * max(1, math.hypot(*theirs[name])), name)

    def test_threads_processes_and_both_from_run_to_run(self):
        threads = self.must_train(self.folder / "threads", **TWO)
        for name, changes in {"again": {}, "processes": {"processes": 4}, "mixed": {"processes": 2},
                              "three": {"processes": 3}, "sharded": {"zero": 1},
                              "sharded-processes": {"zero": 1, "processes": 4},
                              "small-buckets": {"gradient-bucket": "100B", "processes": 2}}.items():
            with self.subTest(name):
                self.assert_same_bits(self.must_train(self.folder / name, **TWO, **changes), threads)
        self.assertEqual(files(threads, 12), ["stage-000.safetensors", "stage-001.safetensors"])
        self.assertEqual(files(self.folder / "sharded", 12),
                         ["stage-000-shard-001.safetensors", "stage-000.safetensors",
                          "stage-001-shard-001.safetensors", "stage-001.safetensors"])

    def test_the_numbers_of_one_replica(self):
        for optimizer in "sgd", "adamw":
            with self.subTest(optimizer):
                settings = {"optimizer": optimizer, "learning_rate": 1e-2 if optimizer == "sgd" else 1e-3}
                one = self.must_train(self.folder / f"{optimizer}-1", stages=1, **settings)
                two = self.must_train(self.folder / f"{optimizer}-2", stages=2, replicas=2, **settings)
                self.assert_close(two, one)

    def test_schedules_with_several_stages_on_a_rank_and_with_two_copies(self):
        for schedule, stages in ("zb-v", 4), ("dualpipe", 2), ("chimera", 2):
            with self.subTest(schedule):
                settings = {"schedule": schedule, "stages": stages, "replicas": 2, "microbatches": 8, "batch": 9,
                            "steps": 4, "tied-head": True}
                threads = self.must_train(self.folder / f"{schedule}-threads", **settings)
                sharded = self.must_train(self.folder / f"{schedule}-sharded", zero=1, processes=4, **settings)
                self.assert_same_bits(sharded, threads, step=4)

    def test_a_run_goes_on_with_another_number_of_replicas(self):
        """A checkpoint holds the same whoever wrote it; the bits after it are those of who goes on."""
        for name, begins, goes_on in (("fewer", {**TWO, "zero": 1}, {"replicas": 1, "stages": 3, "zero": 0}),
                                      ("more", {"stages": 1, "tied-head": True}, {**TWO, "zero": 1}),
                                      ("as-many", TWO, {**TWO, "zero": 1, "processes": 2, "stages": 1})):
            with self.subTest(name):
                # As if it had been stopped after step 6, so that the course of the learning rate is the whole's.
                out = self.must_train(self.folder / name, **begins, keep=6)
                whole = p.losses(out)
                for folder in sorted((out / "checkpoints").iterdir())[3:]:
                    (folder / "index.json").unlink()
                before = p.tensors(out, 6)
                code, told, err = self.train(out, resume=True, **{"tied-head": True, **goes_on})
                self.assertEqual(code, 0, err)
                self.assertIn("resuming after step 6", told)
                self.assertEqual(p.losses(out)[:6], whole[:6])
                self.assertEqual(sorted(p.tensors(out, 12)), sorted(before))
                for (_, mine, _), (_, theirs, _) in zip(p.losses(out), whole, strict=True):
                    self.assertLess(abs(mine / theirs - 1), 1e-5)
                if name == "as-many":
                    self.assertEqual(p.losses(out), whole)

    def test_a_lost_process_leaves_fewer_replicas_or_as_many(self):
        config_file = self.folder / "run.toml"
        config_file.write_text('optimizer = "sgd"\n')
        for processes, stages, expected in ((4, 2, {"replicas": 1, "stages": 3}), (2, 1, {"replicas": 1, "stages": 1})):
            with self.subTest(processes=processes):
                out = self.folder / f"elastic-{processes}"
                settings = {**p.SMALL, "data": self.text, "out": out, "processes": processes, "replicas": 2,
                            "stages": stages, "zero": 1, "elastic": True, "steps": 40, "peer-timeout": 2,
                            "join-timeout": 20, "config": config_file,
                            "cut": "2" if stages == 2 else "uniform"}
                launcher = p.start("train", *p.flags(settings))
                p.wait_for_step(launcher, out, 6)
                os.kill(p.workers_of(launcher.pid)[1], signal.SIGKILL)
                _, err = launcher.communicate(timeout=120)
                self.assertEqual(launcher.returncode, 0, err)
                self.assertEqual([step for step, _, _ in p.losses(out)], list(range(1, 41)))
                config = (out / "config.toml").read_text()
                for name, value in {**expected, "ranks": 0, "zero": 0, "cut": '"uniform"', "optimizer": '"sgd"'}.items():
                    self.assertIn(f"\n{name} = {value} ", config)
                self.assertFalse((out / "restart.toml").exists())

    def test_under_a_gradient_tree_the_bits_are_those_of_one_replica(self):
        tree = {"gradient-tree": 4, "optimizer": "adamw", "batch": 6}
        one = self.must_train(self.folder / "tree-1", stages=1, **tree)
        self.assertNotEqual(p.losses(one), p.losses(self.must_train(self.folder / "row", stages=1, batch=6)))
        for name, changes in {"two": {"replicas": 2, "stages": 2},
                              "four-processes": {"replicas": 4, "stages": 1, "processes": 4, "zero": 1},
                              "two-processes": {"replicas": 2, "stages": 2, "processes": 2,
                                                "gradient-bucket": "100B"}}.items():
            with self.subTest(name):
                self.assert_same_bits(self.must_train(self.folder / name, **tree, **changes), one)

    def test_a_lost_replica_leaves_the_bits_under_a_gradient_tree(self):
        settings = {**p.SMALL, "data": self.text, "steps": 40, "gradient-tree": 4, "peer-timeout": 2,
                    "join-timeout": 20}
        one = self.folder / "whole"
        code, _, err = p.run("train", *p.flags({**settings, "out": one}))
        self.assertEqual(code, 0, err)
        out = self.folder / "lost"
        launcher = p.start("train", *p.flags({**settings, "out": out, "processes": 4, "replicas": 4, "stages": 1,
                                              "zero": 1, "elastic": True}))
        p.wait_for_step(launcher, out, 6)
        os.kill(p.workers_of(launcher.pid)[1], signal.SIGKILL)
        _, err = launcher.communicate(timeout=120)
        self.assertEqual(launcher.returncode, 0, err)
        self.assertIn("\nreplicas = 1 ", (out / "config.toml").read_text())
        self.assert_same_bits(one, out, step=40)

    def test_the_table_has_a_line_for_every_holder_and_tokens_are_of_the_whole_minibatch(self):
        out = self.folder / "out"
        code, told, err = self.train(out, replicas=2, stages=2, steps=3, processes=2)
        self.assertEqual(code, 0, err)
        self.assertIn("on 4 ranks (2 replicas of 2)", told)
        rows = [line.split()[:2] for line in told.splitlines() if "%" in line and "  cpu  " in line]
        self.assertEqual(rows, [["0", "0"], ["0", "2"], ["1", "1"], ["1", "3"]])
        for line in p.metrics(out):
            self.assertAlmostEqual(line["tokens_per_s"], 6 * 16 * 1000 / line["step_ms"], delta=1)
        timeline = json.loads((out / "timeline.json").read_text())
        self.assertGreater(len(timeline["traceEvents"] if isinstance(timeline, dict) else timeline), 0)

    def test_what_does_not_fit_is_refused(self):
        for words, changes in ((["--replicas is 0"], {"replicas": 0}),
                               (["5 replicas for 4 microbatches"], {"replicas": 5}),
                               (["7 microbatches", "batch of 6"], {"replicas": 7, "microbatches": 7}),
                               (["--zero is 2"], {"replicas": 2, "zero": 2}),
                               (["--zero = 1", "one holder", "--replicas"], {"zero": 1}),
                               (["--gradient-bucket is \"4\""], {"replicas": 2, "gradient-bucket": "4"}),
                               (["4 ranks for 5 processes"], {"replicas": 2, "processes": 5}),
                               (["replica 0 of 2, with 2 microbatches", "even"],
                                {"replicas": 2, "schedule": "dualpipe", "stages": 3})):
            with self.subTest(words):
                code, told, err = self.train(self.folder / "refused", **changes)
                self.assertEqual(code, 2, told + err)
                lines = [line for line in err.splitlines() if line.startswith("penstock: ")]
                self.assertEqual(len(lines), 1, err)
                for word in words:
                    self.assertIn(word, lines[0])
                self.assertFalse((self.folder / "refused").exists())


if __name__ == "__main__":
    unittest.main()
