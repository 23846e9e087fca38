"""Every command of the tutorial, run in its order in one folder, prints what the page shows, apart from times."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import penstock_process as p
import words_test

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
BAR = re.compile("[█░]+")
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]\d+)?[kMB]?\b")
UNIT = re.compile(r"# (ns|µs|ms|s|min|h|B|KiB|MiB|GiB)\b")


def shape_of(line):
    """The line without what depends on the machine: numbers, the units that go with them, bars."""
    return " ".join(UNIT.sub("#", NUMBER.sub("#", BAR.sub("", line))).split())


def lasting(lines):
    """Which steps are told of depends on how long they take."""
    return [shape_of(line) for line in lines if not re.match(r"\s*step \d+/\d+ ", line)]


class Tutorial(unittest.TestCase):
    def test_every_command_runs_and_prints_what_the_page_shows(self):
        text = PAGE.read_text()
        config = re.search(r"`gpt\.toml`.*?\n\n((?:    [^\n]*\n)+)", text, re.DOTALL)[1]
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "gpt.toml").write_text(config)
            # What was measured in this folder, and nothing that a user of this machine has.
            environment = {**os.environ, "XDG_CACHE_HOME": name}
            folders = []
            for command, shown in words_test.shown(PAGE):
                with self.subTest(command=command):
                    program = f"'{p.PENSTOCK}' {command.removeprefix('penstock ')}"
                    done = subprocess.run(program, shell=True, cwd=folder, env=environment, capture_output=True,
                                          text=True, timeout=600)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    if command.startswith("penstock plan"):
                        # Which plans are best is the machine's.
                        self.assertEqual(shape_of(done.stdout.splitlines()[0]), shape_of(shown[0]))
                        self.assertIn("What would change the answer:", done.stdout)
                        self.assertTrue((folder / "plan.toml").exists() and (folder / "sweep.svg").exists())
                    elif "--plan" in command:
                        self.assertIn("the plan and what was measured (medians):", done.stdout)
                    else:
                        self.assertEqual(lasting(done.stdout.splitlines()), lasting(shown))
                    folders += re.findall(r"--out (\S+)", command)
            self.check_losses(folder, folders)

    def check_losses(self, folder, folders):
        """Microbatches are one minibatch; stages and schedules change no bit."""
        self.assertIn("runs/one-5", folders)
        losses = {name: [line["loss"] for line in p.metrics(folder / name)][:5] for name in folders}
        for name in folders:
            for whole, cut in zip(losses["runs/one-5"], losses[name]):
                self.assertAlmostEqual(whole, cut, delta=1e-4 * whole, msg=name)
        self.assertEqual(losses["runs/eight-1"], losses["runs/eight-2"])
        self.assertEqual(losses["runs/memory-gpipe"], losses["runs/memory-1f1b"])


if __name__ == "__main__":
    unittest.main()
