"""What a new user meets: mistakes that are understood, readers that go, answers for programs, names in `ps`."""

import datetime
import json
import os
import pathlib
import pty
import subprocess
import unittest

import penstock_process as p

PIPELINE = ["--ranks", 2, "--microbatches", 4]


class Mistakes(p.Case):
    def refused(self, words, *arguments):
        code, out, err = p.run(*arguments)
        self.assertEqual((code, out), (2, ""), f"{arguments}: {err}")
        self.assertEqual(len(err.splitlines()), 1, err)
        for word in words:
            self.assertIn(word, err)

    def test_what_was_probably_meant_is_named(self):
        self.refused(["'trian'", "did you mean 'train'?"], "trian")
        self.refused(["did you mean 'show'?"], "schedule", "shwo")
        self.refused(["'--stage'", "did you mean '--stages'?"], "bubbles", "--stage", 3)
        self.refused(["'--stage'", "did you mean '--stages'?"], "bubbles", "--stage=3")
        self.refused(["did you mean '--version'?"], "--verison")
        self.refused(["did you mean '1f1b'?"], "schedule", "show", "1fb1", *PIPELINE)
        self.refused(["did you mean '1f1b'?"], "bubbles", "--schedules", "1fb1")
        self.refused(["did you mean 'svg'?"], "schedule", "show", "1f1b", *PIPELINE, "--format", "sgv")
        self.refused(["did you mean 'convnet'?"], "train", "--data", self.text, "--out", self.folder / "out", "--model",
                     "convent")
        self.refused(["did you mean 'schedule'?"], "help", "shcedule")
        self.refused(["one word too many"], "schedule", "list", "all")

    def test_nothing_is_printed_before_a_refusal(self):
        self.refused(["0 stages"], "bubbles", "--stages", 0)
        self.refused(["forward-only"], "bubbles", "--schedules", "1f1b,forward-only")
        self.refused(["-1"], "bubbles", "--relative-times=-1")
        out = self.must_train(self.folder / "out")
        # The checkpoint is found first, and only then held against the settings.
        self.refused(["--width is 32"], "train", "--resume", "--out", out, "--width", 32)

    def test_devices_that_are_not_here(self):
        for device in ("meta", "mps", "xla", "garbage", "cuda:99", "cuda:12345678901", "", "cuda:-1"):
            self.refused(["device"], "train", *p.flags({**p.SMALL, "data": self.text, "out": self.folder / "out",
                                                        "devices": device}))
            self.refused(["device"], "plan", "--data", self.text, "--ranks", 2, "--batch", 4, "--devices", device)

    def test_help(self):
        for words in ([], ["train"], ["schedule"], ["schedule", "show"]):
            code, told, err = p.run("help", *words)
            self.assertEqual((code, err), (0, ""))
            self.assertEqual(told, p.run(*words, "--help")[1])
        self.assertEqual(p.run("-V"), p.run("--version"))
        self.assertIn("help", p.run("--help")[1])

    def test_topics(self):
        pages = pathlib.Path(__file__).resolve().parents[2] / "docs"
        self.assertEqual(p.run("help", "glossary"), (0, (pages / "glossary.md").read_text(encoding="utf-8"), ""))
        self.assertIn("glossary", p.run("help")[1])
        self.refused(["did you mean", "glossary", "a topic:"], "help", "glosary")

    def test_every_name_that_is_listed_is_shown(self):
        listed = json.loads(p.run("schedule", "list", "--json")[1])["schedules"]
        self.assertEqual(len(listed), 16)
        told = p.run("schedule", "list")[1]
        for schedule in listed:
            self.assertIn(schedule["schedule"] + " ", told)
            code, _, err = p.run("schedule", "show", schedule["schedule"], *PIPELINE)
            self.assertEqual(code, 0, err)


class Readers(p.Case):
    """Whoever reads the progress goes."""

    def start_and_go(self, *more, errors=subprocess.PIPE, **changes):
        out = self.folder / "out"
        settings = {**p.SMALL, "steps": 60, "data": self.text, "out": out, **changes}
        process = subprocess.Popen([p.PENSTOCK, "train", *p.flags(settings), *more], stdout=subprocess.PIPE,
                                   stderr=errors, stdin=subprocess.DEVNULL)
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read() if process.stderr else b""
        if process.stderr:
            process.stderr.close()
        return process.wait(timeout=300), err, out

    def test_a_run_goes_on_silently_and_saves(self):
        code, err, out = self.start_and_go()
        self.assertEqual((code, err), (0, b""))
        self.assertEqual(len(p.metrics(out)), 60)
        self.assertTrue((out / "checkpoints" / "step-00000060").is_dir())

    def test_of_several_processes_too(self):
        code, err, out = self.start_and_go(processes=2)
        self.assertEqual((code, err), (0, b""))
        self.assertEqual(len(p.metrics(out)), 60)

    def test_of_several_processes_whose_errors_nobody_reads(self):
        code, _, out = self.start_and_go(processes=2, errors=subprocess.STDOUT)
        self.assertEqual(code, 0)
        self.assertEqual(len(p.metrics(out)), 60)

    def test_other_commands_end_quietly(self):
        for ignored in (False, True):
            # As under a shell, and under a parent that ignores SIGPIPE.
            process = subprocess.Popen([p.PENSTOCK, "schedule", "show", "1f1b", "--ranks", "60", "--microbatches", "600"],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, restore_signals=not ignored)
            process.stdout.read(10)
            process.stdout.close()
            err = process.stderr.read()
            process.stderr.close()
            self.assertEqual(err, b"")
            self.assertIn(process.wait(timeout=300), (-13, 141))

    def test_quiet_prints_nothing(self):
        out = self.folder / "out"
        for processes in (1, 2):
            self.assertEqual(self.train(out / str(processes), quiet=True, processes=processes), (0, "", ""))


class Terminal(p.Case):
    def shown(self, *more, **environment):
        """What a terminal shows of a schedule."""
        ours, theirs = pty.openpty()
        kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        with subprocess.Popen([p.PENSTOCK, "schedule", "show", "1f1b", *map(str, PIPELINE), *more], stdin=subprocess.DEVNULL,
                              stdout=theirs, env={**kept, **environment}) as process:
            os.close(theirs)
            text = b""
            try:
                while piece := os.read(ours, 4096):
                    text += piece
            except OSError:
                pass  # the end of a terminal that nobody writes to any more
        os.close(ours)
        self.assertEqual(process.returncode, 0)
        return text

    def test_colours_end_with_no_color(self):
        self.assertIn(b"\x1b[", self.shown())
        # https://no-color.org: set, and not to nothing.
        self.assertIn(b"\x1b[", self.shown(NO_COLOR=""))
        self.assertNotIn(b"\x1b[", self.shown(NO_COLOR="1"))
        self.assertIn(b"\x1b[", self.shown("--colour", "always", NO_COLOR="1"))
        self.assertNotIn(b"\x1b[", self.shown("--colour", "never"))


class Answers(p.Case):
    def answer(self, *arguments):
        code, out, err = p.run(*arguments, "--json")
        self.assertEqual(code, 0, err)
        return json.loads(out)

    def test_bubbles(self):
        told = self.answer("bubbles", "--stages", 2, "--microbatches", "1,2", "--schedules", "1f1b", "--forward-ms", 2,
                           "--backward-ms", 2, "--steps", 1)
        self.assertEqual([row["microbatches"] for row in told["rows"]], [1, 2])
        self.assertAlmostEqual(told["rows"][0]["theory"], 0.5)
        self.assertGreater(told["rows"][0]["ms_per_step"], 0)

    def test_eval(self):
        out = self.must_train(self.folder / "out")
        told = self.answer("eval", out, "--data", self.text, "--samples", 8)
        self.assertEqual((told["samples"], told["step"]), (8, 12))
        self.assertIn(f"loss {told['loss_nats']:.4f} nats ({told['loss_bits']:.4f} bits)",
                      p.run("eval", out, "--data", self.text, "--samples", 8)[1])

    def test_verify(self):
        file = self.folder / "own.csv"
        file.write_text('"0F0","0F1","0B0","0B1"\r\n"1F0","1B0","1F1","1B1"\r\n')
        self.assertEqual(self.answer("schedule", "verify", file),
                         {"file": str(file), "correct": True, "ranks": 2, "stages": 2, "microbatches": 2})

    def test_metrics(self):
        before = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=1)
        out = self.must_train(self.folder / "out")
        lines = p.metrics(out)
        times = [datetime.datetime.fromisoformat(line["time"].replace("Z", "+00:00")) for line in lines]
        self.assertEqual(times, sorted(times))
        self.assertLess(before, times[0])
        self.assertLess(times[-1], datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1))
        self.assertEqual([line["tokens"] for line in lines], [6 * 16 * step for step in range(1, 13)])
        for line in lines:
            self.assertEqual([len(line["peak_memory_bytes"]), len(line["peak_activation_bytes"])], [2, 2])
            for held, kept in zip(line["peak_memory_bytes"], line["peak_activation_bytes"]):
                self.assertGreater(held, kept)
                self.assertGreater(kept, 0)
        # A run that goes on counts on, with another batch too.
        code, _, err = p.run("train", "--resume", "--out", out, "--steps", 14, "--batch", 8)
        self.assertEqual(code, 0, err)
        self.assertEqual([line["tokens"] for line in p.metrics(out)[12:]], [12 * 96 + 128, 12 * 96 + 256])

    def test_metrics_of_several_processes(self):
        lines = p.metrics(self.must_train(self.folder / "out", processes=2))
        self.assertEqual([len(lines[-1]["peak_memory_bytes"]), len(lines[-1]["peak_activation_bytes"])], [1, 2])


class Names(p.Case):
    def test_workers_have_names(self):
        settings = {**p.SMALL, "processes": 2, "steps": 1_000_000, "data": self.text, "out": self.folder / "out"}
        launcher = p.start("train", *p.flags(settings))
        try:
            p.wait_for_step(launcher, self.folder / "out", 1)
            workers = p.workers_of(launcher.pid)
            self.assertEqual(sorted(workers), [0, 1])
            for rank, process in workers.items():
                folder = pathlib.Path(f"/proc/{process}")
                self.assertEqual((folder / "comm").read_text(), f"penstock {rank}\n")
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
                self.assertEqual(arguments[:2], [f"penstock worker {rank} of 2".encode(), b"train"])
        finally:
            launcher.terminate()
            launcher.communicate(timeout=300)
        self.assertEqual(launcher.returncode, 143)


if __name__ == "__main__":
    unittest.main()
