"""Bad trees must be refused by the checks, with the file, the line and what to do; a good one must pass."""

import os
import subprocess
import sys
import tempfile
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "script"
TABLE = """
| room | duty | may include |
|---|---|---|
| `base` | ids | – |
| `schedule` | actions | `base` |
| `sim` | plays | `schedule` |
| — | the libtorch line | — |
| `nn` | layers | `base` |
| `run` | all together | all above |
| `launch` | processes | `base` |
| `apps` | command line | anything |
"""
GOOD = {
    "docs/architecture.md": TABLE,
    "include/penstock/base/ids.h": "#include <string>\n",
    "include/penstock/schedule/action.h": '#include "penstock/base/ids.h"\n',
    "include/penstock/nn/layer.h": '#include <torch/torch.h>\n#include "penstock/base/ids.h"\n',
    "src/sim/play.cpp": '#include "penstock/schedule/action.h"\n#include "penstock/base/ids.h"\n#include "sim/clock.h"\n',
    "src/sim/clock.h": "",
    "src/run/run.cpp": '#include "penstock/nn/layer.h"\n#include "penstock/schedule/action.h"\n',
    "apps/penstock/main.cpp": '#include "penstock/nn/layer.h"\n',
}


def run(script, files):
    """Exit code and output of a check over a tree of these files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        done = subprocess.run([sys.executable, str(SCRIPT / script), folder], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout


def load(script):
    """A script as a module."""
    loader = SourceFileLoader(script, str(SCRIPT / script))
    module = module_from_spec(spec_from_loader(script, loader))
    loader.exec_module(module)
    return module


class CountTests(unittest.TestCase):
    REPORT = """<testsuite>
      <testcase name="good" status="run"/>
      <testcase name="bad" status="fail"><failure message=""/></testcase>
      <testcase name="without a device" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/></testcase>
      <testcase name="without a program" status="notrun"><skipped message="Unable to find executable"/></testcase>
      <testcase name="off" status="disabled"><skipped message="Disabled"/></testcase>
    </testsuite>"""

    def test_what_could_not_be_started_has_failed(self):
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "ctest.xml"
            report.write_text(self.REPORT, encoding="utf-8")
            done = subprocess.run([sys.executable, str(SCRIPT / "count_tests.py"), str(report), folder], capture_output=True, text=True,
                                  check=True)
        self.assertEqual(done.stdout, "1 2 2\nbad\nwithout a program")


class ChangedRooms(unittest.TestCase):
    ROOMS = load("check_arrows").Rooms(TABLE)

    def affected(self, *files):
        return load("changed_rooms").affected(self.ROOMS, files)

    def test_a_change_concerns_the_room_and_those_that_may_include_it(self):
        self.assertEqual(self.affected("src/sim/play.cpp"), ["sim", "run", "apps"])
        self.assertEqual(self.affected("src/include/penstock/sim/passes.h"), ["sim", "run", "apps"])
        self.assertEqual(self.affected("tests/unit/nn/layer_test.cpp"), ["nn", "run", "apps"])
        self.assertEqual(self.affected("apps/penstock/main.cpp"), ["apps"])

    def test_pages_concern_no_room_and_what_is_elsewhere_all(self):
        self.assertEqual(self.affected("docs/training.md", "README.md"), [])
        self.assertEqual(self.affected(), [])
        self.assertEqual(len(self.affected("CMakeLists.txt")), 7)


class Bootstrap(unittest.TestCase):
    """With programs in the place of pip, apt-get and sleep, which write down how they were called; the first two fail at first."""

    def bootstrap(self, failures, *options, **variables):
        """Exit code, output, and the calls of the three programs, in a tree of its own."""
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder)
            recorder = f"#!/bin/sh\necho \"${{0##*/}} $*\" >> {tree}/calls\n"
            fails = f'echo . >> {tree}/attempts; [ "$(wc -l < {tree}/attempts)" -gt {failures} ] || exit 1\n'
            query = "#!/bin/sh\nexit 1\n"
            programs = {".venv/bin/python": recorder + fails, "bin/apt-get": recorder + fails, "bin/sleep": recorder, "bin/sudo": '#!/bin/sh\n"$@"\n',
                        "bin/dpkg-query": query, "script/bootstrap": (SCRIPT / "bootstrap").read_text(encoding="utf-8")}
            for name, text in programs.items():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                (tree / name).write_text(text, encoding="utf-8")
                (tree / name).chmod(0o755)
            environment = {"PATH": f"{tree}/bin:{os.environ['PATH']}", **variables}
            done = subprocess.run([tree / "script/bootstrap", *options], env=environment, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout + done.stderr, (tree / "calls").read_text(encoding="utf-8").splitlines()

    def test_a_hiccup_of_the_network_does_not_end_pip(self):
        code, output, calls = self.bootstrap(2, "--no-packages")
        self.assertEqual(code, 0, output)
        self.assertEqual([call.split()[0] for call in calls], ["python", "sleep", "python", "sleep", "python"])
        self.assertEqual([calls[1], calls[3]], ["sleep 5", "sleep 20"])
        self.assertIn("--retries 10 --timeout 60", calls[0])
        self.assertIn("bootstrap: pip install failed; trying again in 5 s", output)

    def test_what_fails_three_times_has_failed(self):
        code, output, calls = self.bootstrap(3, "--no-packages")
        self.assertEqual((code, len(calls)), (1, 5), output)
        self.assertIn("in three attempts", output)

    @unittest.skipUnless("VERSION_ID=\"12\"" in Path("/etc/os-release").read_text(encoding="utf-8"), "packages are installed on Debian 12 only")
    def test_apt_gets_fresh_lists_before_it_tries_again(self):
        own = tempfile.TemporaryDirectory()
        self.addCleanup(own.cleanup)
        config = Path(own.name) / "share/cmake/Torch/TorchConfig.cmake"
        config.parent.mkdir(parents=True)
        config.touch()
        code, output, calls = self.bootstrap(1, PENSTOCK_LIBTORCH=own.name)
        self.assertEqual(code, 0, output)
        self.assertEqual([" ".join(call.split()[:2]) for call in calls], ["apt-get update", "sleep 5", "apt-get update", "apt-get install"])


class Arrows(unittest.TestCase):
    def refused(self, changed, *expected, code=1):
        returned, output = run("check_arrows", {**GOOD, **changed})
        self.assertEqual(returned, code, output)
        for text in expected:
            self.assertIn(text, output)

    def test_a_tree_that_follows_the_table_passes(self):
        returned, output = run("check_arrows", GOOD)
        self.assertEqual(returned, 0, output)
        self.assertIn("7 files, 10 includes, 0 against the table", output)

    def test_an_include_against_the_table_is_named_with_what_is_allowed(self):
        self.refused(
            {"include/penstock/schedule/action.h": '\n#include "penstock/nn/layer.h"\n'},
            'include/penstock/schedule/action.h:2: #include "penstock/nn/layer.h": room schedule may include base;',
        )

    def test_the_composition_root_may_not_include_rooms_below_it(self):
        self.refused(
            {"include/penstock/launch/watch.h": "", "src/run/run.cpp": '#include "penstock/launch/watch.h"\n'},
            "room run may include base, schedule, sim, nn;",
        )

    def test_angle_brackets_hide_nothing(self):
        self.refused({"src/base/ids.cpp": "#  include <penstock/schedule/action.h>\n"}, "room base may include no other room")

    def test_libtorch_stays_below_the_line(self):
        for header in ("torch/torch.h", "ATen/ATen.h", "c10/util/Exception.h"):
            self.refused({"src/sim/play.cpp": f"#include <{header}>\n"}, "src/sim/play.cpp:1:", "above the libtorch line")

    def test_private_headers_stay_in_their_room(self):
        self.refused({"src/run/run.cpp": '#include "sim/clock.h"\n'}, "src/sim/clock.h is private to room sim")
        self.refused({"apps/penstock/main.cpp": '#include "../../src/sim/clock.h"\n'}, "src/sim/clock.h is private to room sim")

    def test_headers_between_rooms_follow_the_table_and_are_no_part_of_installed_ones(self):
        between = {"src/include/penstock/sim/passes.h": "", "src/run/run.cpp": '#include "penstock/sim/passes.h"\n'}
        returned, output = run("check_arrows", {**GOOD, **between})
        self.assertEqual(returned, 0, output)
        self.refused({**between, "src/base/ids.cpp": '#include "penstock/sim/passes.h"\n'}, "room base may include no other room")
        self.refused({**between, "include/penstock/penstock.h": '#include "penstock/sim/passes.h"\n'}, "src/include/penstock/sim/passes.h is not installed")
        self.refused({"src/include/penstock/misc/things.h": ""}, "room misc has no row")

    def test_30_headers_are_installed_and_not_31(self):
        more = {f"include/penstock/sim/part_{number}.h": "" for number in range(26)}  # beside those of GOOD and the old name
        returned, output = run("check_arrows", {**GOOD, **more})
        self.assertEqual(returned, 0, output)
        self.refused({**more, "include/penstock/sim/one_too_many.h": ""}, "include/penstock: 31 headers with the old name, expected at most 30;")

    def test_a_header_that_does_not_exist_is_named(self):
        self.refused({"src/sim/play.cpp": '#include "penstock/base/gone.h"\n'}, "no such header")

    def test_a_room_without_a_row_is_named(self):
        self.refused({"src/misc/things.cpp": ""}, "src/misc/things.cpp:1: room misc has no row")

    def test_files_that_include_each_other_are_named(self):
        self.refused(
            {"src/sim/clock.h": '#include "sim/watch.h"\n', "src/sim/watch.h": '#include "sim/clock.h"\n'},
            "includes form a cycle: src/sim/clock.h -> src/sim/watch.h -> src/sim/clock.h",
        )

    def test_a_table_with_an_arrow_to_a_later_row_is_refused(self):
        upward = TABLE.replace("| `base` | ids | – |", "| `base` | ids | `sim` |")
        self.refused({"docs/architecture.md": upward}, "`base` may include `sim`", "cannot form a cycle", code=2)

    def test_a_missing_table_is_refused(self):
        self.refused({"docs/architecture.md": "nothing"}, "got no table of rooms", code=2)


class Length(unittest.TestCase):
    def test_500_lines_pass_and_501_do_not(self):
        self.assertEqual(run("check_length", {"src/base/ids.cpp": "\n" * 500})[0], 0)
        returned, output = run("check_length", {"src/base/ids.cpp": "\n" * 501})
        self.assertEqual(returned, 1)
        self.assertIn("src/base/ids.cpp:501: 501 lines, expected at most 500", output)


class Links(unittest.TestCase):
    def test_links_to_files_and_headings_pass(self):
        returned, output = run("check_links", {
            "README.md": "# Top\n\n[a](docs/a.md#the-first-one) [b](docs) ![c](docs/c.svg) [d](https://no.where/x) [e](#top)\n"
                         "\n    [no](link.md)\n\n`[no](link.md)`\n",
            "docs/a.md": "## The `first` one\n\n[up](../README.md)\n", "docs/c.svg": ""})
        self.assertEqual((returned, output), (0, "links: 2 pages, 0 broken links\n"))

    def test_a_link_to_nothing_is_named(self):
        for link in ("docs/none.md", "../outside.md", "#nowhere", "README.md#nowhere"):
            returned, output = run("check_links", {"README.md": f"# Top\n\n[a]({link})\n"})
            self.assertEqual(returned, 1)
            self.assertIn(f"README.md: {link} leads to no", output)

    def test_a_folder_without_pages_is_refused(self):
        self.assertEqual(run("check_links", {"a.txt": ""})[0], 2)


if __name__ == "__main__":
    unittest.main()
