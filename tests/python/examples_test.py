"""The examples run and learn, and so do the programs of the documents."""

import re
import subprocess
import sys
import unittest
from pathlib import Path

import torch

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[2]


def said_by(program):
    ended = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def losses(text):
    return [float(found) for found in re.findall(r"loss ([0-9.]+)", text)]


class Examples(unittest.TestCase):
    def test_a_small_network_learns(self):
        found = losses(said_by(ROOT / "examples" / "train_from_python.py"))
        self.assertLess(found[-1], found[0])

    def test_a_vision_transformer_learns(self):
        found = losses(said_by(ROOT / "examples" / "train_vision.py"))
        self.assertLess(found[-1], 0.5 * found[0])

    def test_its_layers_are_the_model(self):
        import penstock as ps

        sys.path.insert(0, str(ROOT / "examples"))
        import train_vision

        images, classes = train_vision.minibatch(0)
        with torch.no_grad():
            expected = train_vision.tiny_model().eval()(images).logits
        model = train_vision.tiny_model()
        with ps.Pipeline(train_vision.vision_layers(model), torch.nn.functional.cross_entropy, ranks=3, microbatches=4) as pipe:
            self.assertLess((pipe(images) - expected).abs().max().item(), 1e-5)

    def test_the_program_in_the_readme_runs(self):
        text = (ROOT / "README.md").read_text()
        program = re.search(r"```python\n(import penstock as ps\n.*?)```", text, re.DOTALL)[1]
        self.assertLessEqual(len([line for line in program.splitlines() if line.strip()]), 15)
        self.assertEqual((ROOT / "examples" / "train_from_python.py").read_text().split('"""\n\n', 1)[1], program)


if __name__ == "__main__":
    unittest.main()
