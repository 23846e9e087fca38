"""Documents become a corpus that training reads; what cannot be read is one line, and nothing is written."""

import gzip
import json
import pathlib
import struct
import unittest

import penstock_process as p

DATA = pathlib.Path(__file__).resolve().parents[1] / "unit" / "tokenizer" / "data"


class Tokenize(p.Case):
    def setUp(self):
        super().setUp()
        self.texts = [f"Stage {number} waits for rank {number % 7}.\n" * 9 for number in range(200)]
        lines = "".join(json.dumps({"id": number, "body": text}) + "\n" for number, text in enumerate(self.texts))
        self.lines = self.folder / "lines.jsonl.gz"
        self.lines.write_bytes(gzip.compress(lines.encode()))
        self.corpus = self.folder / "corpus"

    def tokenize(self, *data, tokenizer=DATA / "gpt2", **options):
        return p.run("tokenize", *p.flags({"tokenizer": tokenizer, "data": data, "output": self.corpus, **options}))

    def test_a_corpus_of_text_and_lines(self):
        code, out, err = self.tokenize(self.text, self.lines, field="body", json=True)
        self.assertEqual((code, err), (0, ""))
        answer = json.loads(out)
        index = json.loads(self.corpus.with_suffix(".json").read_text())
        begins = struct.unpack(f"<{index['documents'] + 1}Q", self.corpus.with_suffix(".idx").read_bytes())
        tokens = self.corpus.with_suffix(".bin").read_bytes()
        self.assertEqual(index["documents"], 1 + len(self.texts))
        self.assertEqual(index["tokens"], answer["tokens"])
        self.assertEqual(len(tokens), 2 * index["tokens"])
        for end in begins[1:]:
            self.assertEqual(struct.unpack_from("<H", tokens, 2 * (end - 1)), (index["end_of_document"],))

    def test_what_cannot_be_read(self):
        before = sorted(self.folder.iterdir())
        cut = self.folder.parent / f"{self.folder.name}-cut.jsonl.gz"
        cut.write_bytes(self.lines.read_bytes()[:-9])
        self.addCleanup(cut.unlink)
        none = pathlib.Path(__file__)
        for words, arguments, options in (
                (["lines.jsonl.gz line 1", '"text"'], [self.text, self.lines], {}),
                (["is cut short"], [cut], {"field": "body"}),
                (["is no JSON", "line 1"], [self.text], {"tokenizer": none}),
                (["there is no tokenizer.json"], [self.text], {"tokenizer": DATA}),
                (['"<none>"'], [self.text], {"end-of-document": "<none>"}),
                (["--threads is 0"], [self.text], {"threads": 0})):
            code, out, err = self.tokenize(*arguments, **options)
            self.assertEqual((code, out), (2, ""), err)
            self.assertEqual(len(err.splitlines()), 1, err)
            self.assertIn("expected", err)
            for word in words:
                self.assertIn(word, err)
            self.assertEqual(sorted(self.folder.iterdir()), before, "something was written")


if __name__ == "__main__":
    unittest.main()
