#!/usr/bin/env python3
"""Makes the small tokenizers of data/ and what the Python package `tokenizers` says of some texts.

usage: make_data.py        with a Python that has `tokenizers`; a second run makes the same files
"""

import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPACE = "\u2581"

TEXTS = [
    "", " ", "a", "The pipeline has 4 stages.", "It's we'LL I've 'S don't",
    "  two   spaces\n\n\tand\r\nlines  ", " " * 300 + "end" + "\n" * 40, "1234567 3.14159 x86-64",
    "int main() {\n    return f(x) << 2;  // ok\n}\n", "naïve café e\u0301 o\u0308 A\u030a", "中文字符 日本語テキスト 한국어",
    "👩‍👩‍👧‍👦 🇪🇺 ☃️ 🙂", "Привет مرحبا שלום नमस्ते ไทย", "a\u00a0b\u2003c\u180ed\u0085e\u2028f", "x" * 400, "ab" * 300,
    "<|endoftext|>", "a <|endoftext|> b<|endoftext|>", "<s>text</s> <unk>", "ﬁ Ⅷ ２ ㎏ İstanbul ſ K", "\u0000\u0001\ufffd\ufeff",
    f"{SPACE}under{SPACE}{SPACE}lower {SPACE}", "keep <mask>  this <word>ly <word> ly", "NULL\n", "'", "…—“quotes”",
]


def words():
    """Some text to learn from: this project's pages."""
    for page in ("README.md", "CONTRIBUTING.md", "docs/architecture.md"):
        yield from (ROOT / page).read_text().splitlines(keepends=True)
    yield from TEXTS


def byte_level(name, pre_tokenizer, *, normalizer=None, post=None, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(words(), trainer)
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|endoftext|>"])
    tokenizer.post_processor = post(tokenizer) if post else processors.ByteLevel(trim_offsets=False)
    return name, tokenizer


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def begin(token):
    def template(tokenizer):
        return processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"{token} $A", pair=f"{token} $A {token} $B",
                                          special_tokens=[(token, tokenizer.token_to_id(token))])])
    return template


def sentence_piece(name, *, metaspace):
    special = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=620, show_progress=False,
                                  special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)], limit_alphabet=120)
    tokenizer.train_from_iterator(words(), trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([])
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
        tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
                                               decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    return name, tokenizer


def many_parts():
    """What is rare, in one tokenizer."""
    _, tokenizer = byte_level("", pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Split(Regex(r"\w+"), "merged_with_previous", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]),
        normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s{2,}"), " "),
                                         normalizers.Strip(left=False, right=True)]))
    tokenizer.add_tokens([AddedToken("<mask>", lstrip=True, rstrip=True), AddedToken("<word>", single_word=True),
                          AddedToken("ＮＵＬＬ", normalized=True), AddedToken("Stage", normalized=False)])
    return "many_parts", tokenizer


def main():
    made = [
        byte_level("gpt2", pre_tokenizers.ByteLevel(add_prefix_space=False)),
        byte_level("llama3", split(LLAMA3), post=begin("<|begin_of_text|>"), ignore_merges=True),
        byte_level("qwen", split(QWEN), normalizer=normalizers.NFC()),
        sentence_piece("llama2", metaspace=False),
        sentence_piece("mistral", metaspace=True),
        many_parts(),
    ]
    for name, tokenizer in made:
        folder = HERE / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        content = json.loads(tokenizer.to_str())
        if content.get("pre_tokenizer") == {"type": "Sequence", "pretokenizers": []}:
            content["pre_tokenizer"] = None
        # A line for each part, short enough to look at.
        (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        cases = []
        for text in TEXTS:
            tokens = tokenizer.encode(text).ids
            cases.append({"text": text, "tokens": tokens, "plain": tokenizer.encode(text, add_special_tokens=False).ids,
                          "decoded": tokenizer.decode(tokens), "decoded_all": tokenizer.decode(tokens, skip_special_tokens=False)})
        (folder / "expected.json").write_text(
            "[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")
        print(name, tokenizer.get_vocab_size(), (folder / "tokenizer.json").stat().st_size, (folder / "expected.json").stat().st_size)


if __name__ == "__main__":
    main()
