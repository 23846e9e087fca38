"""Every command of the tutorial of published models, run in its order in one folder, prints what the page shows, apart from numbers."""

import os
import pathlib
import re
import subprocess
import sys
import unittest

import penstock_process as p
import published_models as m
import tutorial_test
import words_test

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "tutorial-models.md"


def lasting(lines):
    """Whether updates go ahead of their norm is measured."""
    return tutorial_test.lasting(line for line in lines if "updates were made before their norm" not in line)


class TutorialOfModels(m.Case):
    def test_every_command_runs_and_prints_what_the_page_shows(self):
        program = re.search(r"`tiny\.py`.*?\n\n((?:    [^\n]*\n|\n)+)\n", PAGE.read_text(), re.DOTALL)[1]
        (self.folder / "tiny.py").write_text("".join(line[4:] + "\n" for line in program.splitlines()))
        subprocess.run([sys.executable, "tiny.py"], cwd=self.folder, check=True, capture_output=True, timeout=120)
        # What was measured in this folder, and nothing that a user of this machine has.
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.folder)}
        ran = 0
        for command, shown in words_test.shown(PAGE):
            with self.subTest(command=command):
                done = subprocess.run(f"'{p.PENSTOCK}' {command.removeprefix('penstock ')}", shell=True, cwd=self.folder,
                                      env=environment, capture_output=True, text=True, timeout=300)
                self.assertEqual(done.returncode, 0, done.stderr)
                ran += 1
                if command.startswith("penstock plan"):
                    # Which plans are best is the machine's.
                    self.assertIn("What would change the answer:", done.stdout)
                elif not command.startswith("penstock sample"):
                    self.assertEqual(lasting(done.stdout.splitlines()), lasting(shown))
        self.assertEqual(ran, 12)
        for name in ("tuned", "merged"):
            model = m.loaded(self.folder / name)
            self.assertEqual(model.config.num_hidden_layers, 3)
        self.assertTrue((self.folder / "adapters" / "adapter_model.safetensors").exists())
        losses = [line["loss"] for line in p.metrics(self.folder / "runs" / "tuned")]
        self.assertLess(losses[-1], 0.7 * losses[0])


if __name__ == "__main__":
    unittest.main()
