"""What a run shows while it goes on and afterwards: its files, TensorBoard, Prometheus, the report."""

import importlib.util
import json
import pathlib
import re
import signal
import socket
import struct
import sys
import unittest
import urllib.error
import urllib.request

import penstock_process as p

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "explorer"))
import browser

DOCS = pathlib.Path(__file__).parent.parent.parent / "docs"


def documented(file):
    """Of a table of docs/metrics.md, by name: what type it says, and whether it is always there."""
    section = (DOCS / "metrics.md").read_text().split(f"## {file}", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", section, re.MULTILINE)
    return {name: (kind.strip(), there.strip() == "always") for name, kind, there in rows}


def is_of(value, kind):
    if kind == "true":
        return value is True
    if isinstance(value, bool):
        return False
    if kind.startswith("list of "):
        return isinstance(value, list) and all(is_of(one, kind.removeprefix("list of ").removesuffix("s")) for one in value)
    if kind.endswith(" or null"):
        return value is None or is_of(value, kind.removesuffix(" or null"))
    return isinstance(value, {"integer": int, "number": (int, float), "text": str}[kind])


class Files(p.Case):
    def check(self, lines, file, seen):
        fields = documented(file)
        self.assertGreater(len(fields), 4)
        for line in lines:
            self.assertEqual(set(line) - set(fields), set(), f"not in docs/metrics.md: {file}")
            self.assertEqual({name for name, (_, always) in fields.items() if always} - set(line), set(), line)
            for name, value in line.items():
                self.assertTrue(is_of(value, fields[name][0]), f"{name} is {value!r}, documented as {fields[name][0]}")
        self.assertLessEqual(seen, {name for line in lines for name in line})

    def test_every_line_has_the_documented_fields(self):
        out = self.must_train(self.folder / "run", precision="fp16", post_validation=True, clip=0.01, processes=2)
        self.check(p.metrics(out), "metrics.jsonl",
                   {"held_out_loss", "evaluation_ms", "checkpoint_ms", "updated_first", "taken_back", "peak_activation_bytes"})
        events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
        self.check(events, "events.jsonl", {"held_out_loss"})
        self.assertEqual([events[0]["event"], events[-1]["event"]], ["start", "end"])

    def test_the_ranks_times_make_the_step(self):
        for line in p.metrics(self.must_train(self.folder / "run", stages=4)):
            for busy, span, link in zip(line["rank_busy_ms"], line["rank_span_ms"], line["rank_link_ms"], strict=True):
                self.assertGreater(busy, 0)
                self.assertLessEqual(busy, span + 0.002)
                self.assertLessEqual(link, span - busy + 0.002)
            self.assertEqual(len(line["rank_busy_ms"]), 4)

    def test_the_followed_plan_is_kept(self):
        out = self.must_train(self.folder / "auto", ranks=2, schedule="auto", microbatches="auto", cut="auto", stages=None, cost=self.folder / "cost.json")
        again = self.must_train(self.folder / "again", plan=out / "plan.toml", stages=None, microbatches=None)
        self.check(p.metrics(again), "metrics.jsonl", {"planned_step_ms", "planned_utilisation"})
        self.assertTrue((again / "plan.toml").exists())


@unittest.skipUnless(importlib.util.find_spec("tensorboard"), "TensorBoard is not installed: script/bootstrap --tests")
class TensorBoard(p.Case):
    def points(self, out):
        from tensorboard.backend.event_processing import event_accumulator
        events = event_accumulator.EventAccumulator(str(out / "tensorboard"), size_guidance={event_accumulator.SCALARS: 0})
        events.Reload()
        return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    def test_a_run_that_went_on_has_each_point_once(self):
        out = self.must_train(self.folder / "run", tensorboard=True, steps=12)
        for folder in (out / "checkpoints").iterdir():
            if int(folder.name.removeprefix("step-")) > 8:
                p.shutil.rmtree(folder)
        code, _, err = p.run("train", "--resume", "--out", out, "--tensorboard")
        self.assertEqual(code, 0, err)
        points = self.points(out)
        lines = p.metrics(out)
        as_float = lambda value: struct.unpack("<f", struct.pack("<f", value))[0]
        self.assertEqual(points["loss/training_loss"], [(line["step"], as_float(line["loss"])) for line in lines])
        self.assertEqual(points["loss/held_out_loss"], [(line["step"], as_float(line["held_out_loss"])) for line in lines if "held_out_loss" in line])
        self.assertEqual(len(points["memory/peak_memory_bytes/rank_1"]), 12)


class Prometheus(p.Case):
    @unittest.skipUnless(importlib.util.find_spec("prometheus_client"), "prometheus_client is not installed: script/bootstrap --tests")
    def test_figures_are_there_while_it_trains_and_the_port_is_free_afterwards(self):
        from prometheus_client.parser import text_string_to_metric_families
        port = p.free_port()
        out = self.folder / "run"
        settings = {**p.SMALL, "data": self.text, "out": out, "steps": 100_000, "eval-every": 0, "prometheus": port}
        process = p.start("train", *p.flags(settings))
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        p.wait_for_step(process, out, 3)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            self.assertTrue(answer.headers["Content-Type"].startswith("text/plain; version=0.0.4"))
            families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
        self.assertEqual(families["penstock_steps"].type, "counter")
        self.assertGreaterEqual(families["penstock_steps"].samples[0].value, 2)
        self.assertEqual([sample.labels["rank"] for sample in families["penstock_peak_memory_bytes"].samples], ["0", "1"])
        with self.assertRaises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        self.assertEqual((process.returncode, err), (130, ""))
        self.assertFalse(p.is_listening(port))

    def test_a_port_that_is_taken_ends_it_before_anything_is_written(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            for more in ({}, {"processes": 2}):
                code, out, err = self.train(self.folder / "run", prometheus=taken.getsockname()[1], **more)
                self.assertEqual(code, 2, err)
                self.assertIn("--prometheus cannot listen: port", err)
                self.assertFalse((self.folder / "run").exists())


class Report(p.Case):
    def test_it_is_written_while_a_run_goes_on_and_ends_when_asked(self):
        out = self.folder / "run"
        process = p.start("train", *p.flags({**p.SMALL, "data": self.text, "out": out, "steps": 100_000, "eval-every": 0}))
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        p.wait_for_step(process, out, 3)
        page = self.folder / "report.html"
        watching = p.start("report", out, "-o", page, "--watch")
        self.addCleanup(watching.communicate)
        self.addCleanup(watching.kill)
        self.assertTrue(p.comes_true(lambda: page.exists() and 'http-equiv="refresh"' in page.read_text()))
        first = page.read_text()
        self.assertTrue(p.comes_true(lambda: page.read_text() != first))
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
        watching.send_signal(signal.SIGINT)
        _, err = watching.communicate(timeout=120)
        self.assertEqual((watching.returncode, err), (0, ""))
        self.assertNotIn('http-equiv="refresh"', page.read_text())
        self.assertIn("stopped by signal 2", page.read_text())

    @unittest.skipUnless(browser.find_chromium(), "there is no chromium on the path")
    def test_a_browser_shows_it_wide_and_narrow(self):
        out = self.must_train(self.folder / "processes", processes=2)
        planned = self.must_train(self.folder / "auto", ranks=2, schedule="auto", microbatches="auto", cut="auto", stages=None,
                                  cost=self.folder / "cost.json")
        page = self.folder / "report.html"
        self.assertEqual(p.run("report", out, planned, "-o", page), (0, f"{page}\n", ""))
        with browser.Page(page) as shown:
            for width in (1360, 360):
                shown.set_size(width, 800)
                shown.load()
                self.assertLessEqual(shown.run("document.documentElement.scrollWidth"), width)
            shown.set_size(1360, 800)
            shown.load()
            text = shown.run("document.body.innerText")
            self.assertRegex(text, r"utilisation, median\s+\S+ %\s+\S+ % \(planned \S+ %, [+−]\S+ points\)")
            self.assertRegex(text, r"most memory of a rank\s+\S+ \S+, of those in the first process\s+\S+ [KM]?i?B\n")
            clipped = shown.run("[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth).map(one => one.innerText)")
            self.assertEqual(clipped, [])
            self.assertEqual(shown.complaints, [])
            self.assertEqual([address for address in shown.asked if not address.startswith("file:")], [])

    def test_what_is_no_run_is_one_line(self):
        code, out, err = p.run("report", self.folder)
        self.assertEqual((code, out), (2, ""))
        self.assertIn("holds no run", err)
