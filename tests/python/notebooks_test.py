"""The notebooks run from their first cell to their last, and what they show is kept in them."""

import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Notebooks(unittest.TestCase):
    def run_notebook(self, name):
        try:
            import nbclient
            import nbformat
        except ImportError:
            self.skipTest("nbclient is not installed; script/bootstrap --tests installs it")
        notebook = nbformat.read(ROOT / "docs" / "notebooks" / f"{name}.ipynb", as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                self.assertTrue(cell.outputs or cell.source.startswith("import"), f"{name}: a cell whose output is not kept: {cell.source}")
        with_kernel = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3")
        with_kernel.execute()

    def test_schedules(self):
        self.run_notebook("schedules")

    def test_plan_and_measure(self):
        self.run_notebook("plan_and_measure")

    def test_fine_tune_a_llama(self):
        self.run_notebook("fine_tune_a_llama")


if __name__ == "__main__":
    unittest.main()
