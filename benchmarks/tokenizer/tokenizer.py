#!/usr/bin/env python3
"""One thread of penstock beside one of the Python package `tokenizers`, in turn, on the same documents.

usage: tokenizer.py --tool TOKENIZER_TOOL [--rounds 5] --tokenizer FOLDER_OR_FILE… --data FILE…

Prints the medians of MB/s, and whether all tokens are the same. Loading is not counted. Without --tokenizer and --data: the small
tokenizers of the tests, and this project's own files.
"""

import argparse
import os
import pathlib
import statistics
import struct
import subprocess
import time

# One thread: the package reads these when it encodes.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

from tokenizers import Tokenizer  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]


def own_files():
    for folder in ("docs", "include", "src", "apps", "tests/unit"):
        yield from sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in (".md", ".h", ".cpp", ".py"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokenizer", nargs="*", type=pathlib.Path)
    parser.add_argument("--data", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    data = ROOT / "tests" / "unit" / "tokenizer" / "data"
    named = arguments.tokenizer or [data / name for name in ("gpt2", "llama3", "qwen", "llama2")]
    documents = [path.read_bytes() for path in arguments.data or own_files()]
    texts = [document.decode(errors="replace") for document in documents]
    asked = b"".join(struct.pack("<I", len(document)) + document for document in documents)
    size = sum(map(len, documents)) / 1e6
    print(f"{len(documents)} documents, {size:.1f} MB, medians of {arguments.rounds} rounds in turn")
    for path in named:
        file = path / "tokenizer.json" if path.is_dir() else path
        tokenizer = Tokenizer.from_file(str(file))
        ours, theirs = [], []
        for _ in range(arguments.rounds):
            answer = subprocess.run([arguments.tool, str(file), "time"], input=asked, stdout=subprocess.PIPE, check=True).stdout
            seconds, tokens = answer.split()
            ours.append(float(seconds))
            begun = time.perf_counter()
            expected = sum(len(tokenizer.encode(text).ids) for text in texts)
            theirs.append(time.perf_counter() - begun)
            assert expected == int(tokens), f"{file}: {int(tokens)} tokens, in Python {expected}"
        penstock, python = statistics.median(ours), statistics.median(theirs)
        print(f"{path.name:12} penstock {size / penstock:6.1f} MB/s   tokenizers {size / python:6.1f} MB/s   {python / penstock:5.2f} times as fast")


if __name__ == "__main__":
    main()
