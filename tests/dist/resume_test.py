"""Stopping and going on: by request, on other stages, on a full disk, with checkpoints damaged."""

import json
import pathlib
import resource
import shutil
import signal
import time
import unittest

import penstock_process as p

EARLIER = pathlib.Path(__file__).parent.parent / "golden" / "run_of_12fd677"


class Resume(p.Case):
    def forget_after(self, run, step):
        """As if it had been stopped then: later checkpoints are gone, the metrics still tell of later steps."""
        for folder in (run / "checkpoints").iterdir():
            if int(folder.name.removeprefix("step-")) > step:
                shutil.rmtree(folder)

    def test_goes_on_with_the_same_bits_whatever_is_recomputed_and_in_any_precision(self):
        for settings in ({"recompute": "1-2"}, {"recompute": "selected"}, {"precision": "fp16"},
                         {"precision": "bf16", "post_validation": True}, {"precision": "bf16", "weights": "bf16"}):
            with self.subTest(settings=settings):
                name = "-".join(map(str, settings.values()))
                whole = self.must_train(self.folder / f"{name}-whole", **settings)
                half = self.must_train(self.folder / f"{name}-half", **settings, stages=1, checkpoint_every=1, keep=20)
                self.forget_after(half, 5)
                code, _, err = p.run("train", "--resume", "--out", half, "--stages", 3, "--schedule", "zb-h1")
                self.assertEqual(code, 0, err)
                self.assertEqual(p.losses(half), p.losses(whole))
                self.assertEqual(p.tensors(half, 12), p.tensors(whole, 12))

    def test_goes_on_with_the_same_bits_on_another_number_of_stages(self):
        whole = self.must_train(self.folder / "whole")
        half = self.must_train(self.folder / "half", stages=1, checkpoint_every=1, keep=20)
        self.forget_after(half, 5)
        code, told, err = p.run("train", "--resume", "--out", half, "--stages", 4, "--schedule", "gpipe")
        self.assertEqual(code, 0, err)
        self.assertIn("resuming after step 5", told)
        self.assertEqual(p.losses(half), p.losses(whole))
        self.assertEqual(p.tensors(half, 12), p.tensors(whole, 12))

    def test_goes_on_with_a_run_of_an_earlier_version(self):
        """Its checkpoint, settings and plan are those that commit 12fd677 wrote; another processor rounds differently."""
        for stages, schedule in ((2, "1f1b"), (4, "zb-h1")):
            with self.subTest(stages=stages):
                out = self.folder / f"earlier-{stages}"
                shutil.copytree(EARLIER, out)
                code, told, err = p.run("train", "--resume", "--out", out, "--data", self.text, "--stages", stages,
                                        "--schedule", schedule)
                self.assertEqual(code, 0, err)
                self.assertIn("resuming after step 6", told)
                expected = json.loads((EARLIER / "losses.json").read_text())[6:]
                for (_, got, _), earlier in zip(p.losses(out), expected, strict=True):
                    self.assertLess(abs(got / earlier - 1), 1e-5)

    def test_trains_by_a_plan_of_an_earlier_version(self):
        code, told, err = p.run("train", "--plan", EARLIER / "plan.toml", "--data", self.text, "--layers", 2, "--width", 8,
                                "--heads", 2, "--context", 8, "--steps", 2, "--out", self.folder / "planned",
                                cwd=EARLIER)
        self.assertEqual(code, 0, err)
        self.assertIn("on 2 ranks", told)

    def test_begins_anew_only_when_told_to_where_there_is_no_whole_checkpoint(self):
        out = self.must_train(self.folder / "run")
        for index in (out / "checkpoints").glob("*/index.json"):
            index.write_text("{")
        code, _, err = p.run("train", "--resume", "--out", out)
        self.assertEqual(code, 2, err)
        self.assertIn("--from-the-beginning", err)
        code, told, err = p.run("train", "--resume", "--from-the-beginning", "--out", out)
        self.assertEqual(code, 0, err)
        self.assertIn("from the beginning", told)
        self.assertEqual([line["step"] for line in p.metrics(out)], list(range(1, 13)))

    def test_takes_the_last_whole_checkpoint_where_the_newest_is_damaged(self):
        out = self.must_train(self.folder / "run")
        before = p.losses(out)
        newest = sorted((out / "checkpoints").iterdir())[-1] / "stage-001.safetensors"
        content = bytearray(newest.read_bytes())
        content[-1] ^= 1
        newest.write_bytes(content)
        code, told, err = p.run("train", "--resume", "--out", out)
        self.assertEqual(code, 0, err)
        self.assertIn("resuming after step 10", told)
        self.assertEqual(p.losses(out), before)

    def test_a_damaged_line_of_metrics_does_not_cost_the_others(self):
        out = self.must_train(self.folder / "run")
        lines = (out / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        lines[2] = b"\x00\x00\n"
        (out / "metrics.jsonl").write_bytes(b"".join(lines))
        code, _, err = p.run("train", "--resume", "--out", out)
        self.assertEqual(code, 0, err)
        self.assertEqual([line["step"] for line in p.metrics(out)], [1, 2, *range(4, 13)])

    def test_trains_on_where_nobody_reads_its_progress_any_more(self):
        out = self.folder / "run"
        process = p.start("train", *p.flags({**p.SMALL, "data": self.text, "out": out}))
        process.stdout.close()
        err = process.stderr.read()
        self.assertEqual((process.wait(timeout=60), err), (0, ""))
        self.assertEqual(len(p.metrics(out)), 12)
        self.assertTrue((out / "checkpoints" / "step-00000012" / "index.json").exists(),
                        list((out / "checkpoints").iterdir()))

    def test_an_interrupt_saves_and_leaves(self):
        out = self.folder / "run"
        settings = {**p.SMALL, "data": self.text, "out": out, "steps": 100000, "checkpoint-every": 0}
        for which in (signal.SIGINT, signal.SIGTERM):
            process = p.start("train", *p.flags({**settings, "resume": which == signal.SIGTERM}))
            seen = len(p.metrics(out)) if (out / "metrics.jsonl").exists() else 0
            while not (out / "metrics.jsonl").exists() or len((out / "metrics.jsonl").read_bytes().splitlines()) < seen + 3:
                self.assertIsNone(process.poll())
                time.sleep(0.01)
            process.send_signal(which)
            told, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 128 + which, err)
            last = p.metrics(out)[-1]["step"]
            self.assertIn(f"stopped after step {last}", told)
            self.assertTrue((out / "checkpoints" / f"step-{last:08d}" / "index.json").exists())

    def test_a_full_disk_ends_the_run_with_its_last_checkpoint_whole(self):
        out = self.must_train(self.folder / "run", steps=4)
        kept = p.tensors(out, 4)

        def no_space():
            # The weights no longer fit, the metrics do.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))

        code, _, err = p.run("train", "--resume", "--out", out, "--steps", 8, preexec_fn=no_space)
        self.assertEqual(code, 1, err)
        self.assertEqual(len(err.splitlines()), 1, err)
        self.assertIn("File too large", err)
        self.assertEqual(sorted(folder.name for folder in (out / "checkpoints").iterdir()),
                         ["step-00000002", "step-00000004"])
        self.assertEqual(p.tensors(out, 4), kept)
        code, told, err = p.run("train", "--resume", "--out", out, "--steps", 8)
        self.assertEqual(code, 0, err)
        self.assertIn("resuming after step 4", told)

    def test_two_processes_never_write_into_one_folder(self):
        out = self.folder / "run"
        settings = {**p.SMALL, "data": self.text, "out": out, "steps": 100000}
        first = p.start("train", *p.flags(settings))
        while not (out / "metrics.jsonl").exists():
            time.sleep(0.01)
        code, _, err = p.run("train", "--resume", "--out", out)
        first.kill()
        first.communicate()
        self.assertEqual(code, 2)
        self.assertIn("another process", err)


if __name__ == "__main__":
    unittest.main()
