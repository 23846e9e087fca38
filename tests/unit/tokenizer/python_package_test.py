#!/usr/bin/env python3
"""Random texts are the same tokens here and in the Python package `tokenizers`, and the tokens the same text.

usage: python_package_test.py TOKENIZER_TOOL [FOLDER_OR_FILE…]     by default the tokenizers of data/

Exit code 77 where the package is not installed. The seed is printed; PENSTOCK_SEED gives another.
"""

import os
import pathlib
import random
import struct
import subprocess
import sys

try:
    from tokenizers import Tokenizer
except ImportError:
    print("no Python package `tokenizers`")
    sys.exit(77)

DATA = pathlib.Path(__file__).resolve().parent / "data"
# Characters of these blocks; Unicode 16 has more letters in some than the tables that normal forms come from.
BLOCKS = [(0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0xE7F),
          (0x1100, 0x11FF), (0x1AB0, 0x1AFF), (0x1E00, 0x1FFF), (0x2000, 0x2BFF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
          (0xF900, 0xFAFF), (0xFB00, 0xFB4F), (0xFF00, 0xFFEF), (0x10000, 0x1FFFF), (0x1F300, 0x1FAFF), (0x20000, 0x2FFFF)]
PIECES = [" ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "don't", "'\u017f", "1234567", "\u00a0", "\u2028", "\u180e", "\u0085", "\u200d",
          "<|endoftext|>", "<|begin_of_text|>", "<s>", "</s>", "<unk>", "<mask>", " <word> ", "Stage", "\u2581", "e\u0301", "\u0130"]


def random_text(draw):
    parts = []
    blocks = draw.sample(BLOCKS, draw.randint(1, 4))
    for _ in range(draw.randint(0, 60)):
        kind = draw.random()
        if kind < 0.4:
            parts.append(draw.choice(PIECES) * draw.choice([1, 1, 1, 2, 40]))
        else:
            parts.append("".join(chr(draw.randint(*draw.choice(blocks))) for _ in range(draw.randint(1, 30))))
    content = bytearray("".join(parts).encode())
    if content and draw.random() < 0.3:
        for _ in range(draw.randint(1, 9)):
            content[draw.randrange(len(content))] = draw.randint(0, 255)
    return bytes(content)


def ask(tool, file, words, lists, form):
    """What the tool answers to each list: a list of numbers of `form`."""
    asked = b"".join(struct.pack("<I", len(each)) + (bytes(each) if isinstance(each, bytes) else struct.pack(f"<{len(each)}I", *each))
                     for each in lists)
    answer = subprocess.run([tool, str(file), *words], input=asked, stdout=subprocess.PIPE, check=True).stdout
    at = 0
    for _ in lists:
        (count,) = struct.unpack_from("<I", answer, at)
        size = count * struct.calcsize(form)
        yield answer[at + 4:at + 4 + size] if form == "B" else list(struct.unpack_from(f"<{count}{form}", answer, at + 4))
        at += 4 + size
    assert at == len(answer)


def compare(tool, file, texts):
    theirs = Tokenizer.from_file(str(file))
    expected = [theirs.encode(text.decode(errors="replace")).ids for text in texts]
    different = [text for text, ours, tokens in zip(texts, ask(tool, file, ["encode"], texts, "I"), expected) if ours != tokens]
    for words, skip in (["decode"], True), (["decode", "plain"], False):
        for ours, tokens in zip(ask(tool, file, words, expected, "B"), expected):
            if ours != theirs.decode(tokens, skip_special_tokens=skip).encode():
                different.append(tokens)
    print(f"{file.parent.name}: {len(texts)} texts, {sum(map(len, expected))} tokens, {len(different)} different")
    for each in different[:5]:
        print("  ", each)
    return len(different)


def main():
    tool = sys.argv[1]
    seed = int(os.environ.get("PENSTOCK_SEED", "1"))
    print(f"seed {seed}")
    draw = random.Random(seed)
    texts = [random_text(draw) for _ in range(400)]
    named = [pathlib.Path(name) for name in sys.argv[2:]] or sorted(DATA.iterdir())
    files = [each / "tokenizer.json" if each.is_dir() else each for each in named]
    sys.exit(1 if sum(compare(tool, file, texts) for file in files) else 0)


if __name__ == "__main__":
    main()
