"""Every command shows examples in its --help, and every example runs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import unittest

import penstock_process as p
from tokenize_test import DATA as TOKENIZERS

# What one writes, another reads.
ORDER = ["train", "eval", "sample", "export", "report", "schedule show", "schedule verify", "simulate"]
LLAMA = {"model_type": "llama", "vocab_size": 640, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}


def commands(*path):
    """The words of each command that --help lists, with those within others."""
    text = p.run(*path, "--help")[1]
    listed = text.split("Subcommands:\n")[1] if "Subcommands:\n" in text else ""
    for name in re.findall(r"^  (\S+)", listed.split("\n\n")[0], re.MULTILINE):
        yield [*path, name]
        yield from commands(*path, name)


def examples_of(path):
    text = p.run(*path, "--help")[1]
    behind = text.split("\nExamples:\n")[1] if "\nExamples:\n" in text else ""
    return re.findall(r"^      (penstock .*)$", behind, re.MULTILINE)


class Examples(p.Case):
    def setUp(self):
        super().setUp()
        self.text.rename(self.folder / "book.txt")
        shutil.copy(self.folder / "book.txt", self.folder / "other.txt")
        (self.folder / "lines.jsonl").write_text("".join(json.dumps({"body": f"Rank {n}."}) + "\n" for n in range(50)))
        shape = self.folder / "shape"
        shape.mkdir()
        (shape / "config.json").write_text(json.dumps(LLAMA))
        shutil.copy(TOKENIZERS / "gpt2" / "tokenizer.json", shape)
        self.must_run("train --model shape/ --from-scratch --data book.txt --steps 1 --batch 4 --context 16 --out shaped")
        self.must_run("export shaped -o llama")

    def must_run(self, line):
        done = subprocess.run([p.PENSTOCK, *shlex.split(line)], cwd=self.folder, capture_output=True, text=True, errors="surrogateescape",
                              env={**os.environ, "XDG_CACHE_HOME": str(self.folder)}, timeout=300, check=False)
        self.assertEqual(done.returncode, 0, f"{line}: {done.stderr}")

    def test_every_example_runs(self):
        found = {" ".join(path): examples_of(path) for path in commands()}
        self.assertIn("schedule show", found)
        for command in sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)):
            self.assertGreaterEqual(len(found[command]), 2, command)
            for line in found[command]:
                with self.subTest(line=line):
                    self.assertTrue(line.startswith(f"penstock {command}"), line)
                    self.must_run(line.removeprefix("penstock "))
                    if command == "plan" and not (self.folder / "costs.json").exists():
                        # What the first plan has measured, under a name of its own.
                        measured = min((self.folder / "penstock").rglob("*.json"))
                        shutil.copy(measured, self.folder / "costs.json")


if __name__ == "__main__":
    unittest.main()
