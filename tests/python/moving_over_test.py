"""The two programs of docs/moving-over.md train alike."""

import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from torchrun import torchrun

ROOT = Path(__file__).resolve().parents[2]


def losses(text):
    return [float(found) for found in re.findall(r"loss ([0-9.]+)", text)]


class MovingOver(unittest.TestCase):
    def test_both_programs_have_the_same_loss(self):
        programs = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "moving-over.md").read_text(), re.DOTALL)
        self.assertEqual(len(programs), 2)
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for name, program in zip(("theirs.py", "ours.py"), programs):
                path = Path(folder, name)
                path.write_text(program)
                ended = torchrun(path)
                self.assertEqual(ended.returncode, 0, ended.stderr[-3000:])
                found += losses(ended.stdout)
            alone = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=300)
            self.assertEqual(alone.returncode, 0, alone.stderr[-3000:])
            found += losses(alone.stdout)
        theirs, in_processes, in_threads = found
        self.assertEqual(in_processes, in_threads)
        self.assertAlmostEqual(in_threads, theirs, delta=2e-5)


if __name__ == "__main__":
    unittest.main()
