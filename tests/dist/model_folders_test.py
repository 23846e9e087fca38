"""Folders of published models: what is kept of them, what goes through their tokenizers, what is refused."""

import gzip
import json
import math
import shutil
import unittest

import penstock_process as p
import published_models as m
from published_models import (CASES, CONTEXT, GPT2, STEPS, TOKENIZERS, TRAINING, VOCABULARY, drawn, loaded, loss_of,
                              save_file, sizes, tensors_of, tokenizers, torch)


class ModelFolders(m.Case):
    def test_a_run_goes_on_without_the_folder_that_it_came_from(self):
        folder, whole, parted = (self.folder / name for name in ("published", "whole", "parted"))
        drawn("qwen2", folder)
        settings = {"stages": 2, "checkpoint_every": 2, "warmup": 0, "final_learning_rate": 1}
        self.train_on(folder, whole, **settings, steps=6)
        self.train_on(folder, parted, **settings, steps=4)
        shutil.rmtree(folder)
        code, _, err = p.run("train", "--resume", "--out", parted, "--steps", 6)
        self.assertEqual(code, 0, err)
        self.assertEqual(p.losses(parted), p.losses(whole))
        self.assertEqual(p.tensors(parted, 6), p.tensors(whole, 6))
        code, out, err = p.run("eval", parted, "--data", self.data, "--json")
        self.assertEqual(code, 0, err)
        self.assertGreater(json.loads(out)["loss_nats"], 0)

    def test_text_goes_through_the_tokenizer_of_the_model(self):
        folder, text, tokens, exported = self.place("published", "text", "tokens", "exported")
        tokenizer = TOKENIZERS / "gpt2"
        vocabulary = 1 + max(json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"].values())
        CASES["of text"] = ("GPT2", {**GPT2, "vocab_size": vocabulary + 20})
        self.addCleanup(CASES.pop, "of text")
        model = drawn("of text", folder)
        shutil.copy(tokenizer / "tokenizer.json", folder)
        lines = self.folder / "lines.jsonl"
        lines.write_text("".join(json.dumps({"text": f"Stage {n} waits for rank {n % 7}."}) + "\n" for n in range(200)))
        corpus = folder.parent / "corpus"
        code, _, err = p.run("tokenize", "--tokenizer", folder, "--data", lines, "-o", corpus)
        self.assertEqual(code, 0, err)
        self.train_on(folder, text, data=lines, stages=2)
        self.train_on(folder, tokens, data=f"{corpus}.bin", stages=1)
        self.assertEqual(p.losses(text), p.losses(tokens))
        self.assertEqual(p.tensors(text, STEPS), p.tensors(tokens, STEPS))
        # What the index says of the tokens is heeded, whatever else is said of them.
        self.refused(["tokens32", "corpus.bin", "tokens16, as its index says"], folder, data=f"{corpus}.bin", data_kind="tokens32")
        self.refused(["1 file of tokens (.bin) among 2 files"], folder, data=[lines, f"{corpus}.bin"])
        shutil.copy(TOKENIZERS / "qwen" / "tokenizer.json", folder)
        for more in ({}, {"data_kind": "tokens16"}):
            self.refused(["corpus.bin", "another tokenizer"], folder, data=f"{corpus}.bin", **more)
        code, _, err = p.run("export", text, "-o", exported)
        self.assertEqual(code, 0, err)
        self.assertEqual((exported / "tokenizer.json").read_bytes(), (tokenizer / "tokenizer.json").read_bytes())
        self.check_sampling(text, loaded(exported), exported / "tokenizer.json")
        self.check_several_prompts(text)
        self.check_bits_a_byte(text, lines, corpus)
        self.check_field(folder, lines, text)

    def check_several_prompts(self, run):
        prompts = ["Stage 3 waits", "rank", "Stage 1 waits for rank 5. Stage 2 waits"]
        drawing = ["--temperature", 1.5, "--bytes", 120, "--seed", 4, "--json"]
        alone = []
        for prompt in prompts:
            code, out, err = p.run("sample", run, "--prompt", prompt, *drawing)
            self.assertEqual(code, 0, err)
            alone.append(json.loads(out))
        # Longer than the context, so that each begins anew on its way, and not when the others do.
        several = [word for prompt in prompts for word in ("--prompt", prompt)]
        code, out, err = p.run("sample", run, *several, *drawing)
        self.assertEqual(code, 0, err)
        self.assertEqual(json.loads(out), alone)
        out = p.run("sample", run, *several, *drawing[:-1])[1]
        for number, answer in enumerate(alone, 1):
            self.assertIn(f"--- prompt {number}\n{answer['prompt']}", out)
        # The configuration names tokens that end a text, one or a list.
        tokenizer = tokenizers.Tokenizer.from_file(str(run / "model" / "tokenizer.json"))
        greedy = ["--temperature", 0, "--bytes", 30, "--json"]
        text = json.loads(p.run("sample", run, "--prompt", prompts[0], *greedy)[1])["text"]
        drawn_tokens = tokenizer.encode(prompts[0] + text).ids[len(tokenizer.encode(prompts[0]).ids):]
        for ends in (drawn_tokens[0], [10 ** 9, drawn_tokens[0]]):
            (run / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
            self.assertEqual(json.loads(p.run("sample", run, "--prompt", prompts[0], *greedy)[1])["text"], "")
        (run / "model" / "generation_config.json").unlink()

    def check_bits_a_byte(self, run, lines, corpus):
        index = json.loads(corpus.with_suffix(".json").read_text())
        self.assertEqual(index["text_bytes"], sum(len(json.loads(line)["text"]) for line in lines.read_text().splitlines()))
        of_text, of_tokens = (json.loads(p.run("eval", run, "--data", data, "--json")[1])
                              for data in (lines, corpus.with_suffix(".bin")))
        self.assertEqual(of_text, of_tokens)
        self.assertAlmostEqual(of_text["perplexity"], math.exp(of_text["loss_nats"]), delta=1e-9 * of_text["perplexity"])
        self.assertAlmostEqual(of_text["bits_per_byte"], of_text["loss_bits"] * index["tokens"] / index["text_bytes"])
        bare = self.folder / "bare.bin"
        shutil.copy(corpus.with_suffix(".bin"), bare)
        self.assertNotIn("bits_per_byte", json.loads(p.run("eval", run, "--data", bare, "--json")[1]))
        code, out, err = p.run("eval", run, "--data", bare)
        self.assertEqual(code, 0, err)
        self.assertIn("bits a byte are not known", out)
        # Of a mixture: the bits of a token that is drawn from it, by the bytes of such a token.
        other = self.folder / "other.jsonl"
        other.write_text("".join(json.dumps({"text": f"{n * n} \u00e9\u00e8"}) + "\n" for n in range(100)))
        alone = [json.loads(p.run("eval", run, "--data", data, "--json")[1]) for data in (lines, other)]
        mixed = json.loads(p.run("eval", run, "--data", f"{lines}:1", f"{other}:3", "--json")[1])
        self.assertEqual([source["loss_nats"] for source in mixed["sources"]], [each["loss_nats"] for each in alone])
        bits = sum(share * each["loss_bits"] for share, each in zip((0.25, 0.75), alone))
        size = sum(share * each["loss_bits"] / each["bits_per_byte"] for share, each in zip((0.25, 0.75), alone))
        self.assertAlmostEqual(mixed["loss_bits"], bits)
        self.assertAlmostEqual(mixed["bits_per_byte"], bits / size)
        mixed = json.loads(p.run("eval", run, "--data", f"{lines}:1", f"{bare}:3", "--json")[1])
        self.assertNotIn("bits_per_byte", mixed)
        self.assertEqual(["bits_per_byte" in source for source in mixed["sources"]], [True, False])

    def check_field(self, folder, lines, run):
        renamed = self.folder / "renamed.jsonl"
        renamed.write_text(lines.read_text().replace('"text"', '"body"'))
        shutil.copy(TOKENIZERS / "gpt2" / "tokenizer.json", folder)
        out = self.train_on(folder, self.folder / "of-field", data=renamed, field="body", stages=2)
        self.assertEqual(p.losses(out), p.losses(run))
        self.refused(["renamed.jsonl line 1", '"text"', "--field"], folder, data=renamed)
        of_lines = p.run("eval", folder, "--data", lines, "--json")
        self.assertEqual(of_lines[0], 0, of_lines[2])
        self.assertEqual(p.run("eval", folder, "--data", renamed, "--field", "body", "--json"), of_lines)
        self.assertEqual(p.run("eval", out, "--data", lines, "--field", "text", "--json"),
                         p.run("eval", out, "--data", renamed, "--json"))
        code, _, err = p.run("eval", folder, "--data", renamed)
        self.assertEqual((code, len(err.splitlines())), (2, 1), err)
        self.assertIn("--field", err)
        packed = self.folder / "lines.jsonl.gz"
        packed.write_bytes(gzip.compress(lines.read_bytes())[:-20])
        self.refused(["lines.jsonl.gz", "cut short"], folder, data=packed)
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["model"]["type"] = "WordPiece"
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.refused(["tokenizer.json", '"WordPiece"', "BPE"], folder, data=lines)

    def check_sampling(self, run, model, tokenizer_file):
        tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_file))
        prompt = "Stage 3 waits"
        tokens = tokenizer.encode(prompt).ids
        self.assertLess(len(tokens), CONTEXT - 6)
        begun = len(tokens)
        for _ in range(6):
            with torch.no_grad():
                logits = model(torch.tensor([tokens])).logits[0, -1, :tokenizer.get_vocab_size()]
            tokens.append(int(logits.argmax()))
        expected = tokenizer.decode(tokens)[len(tokenizer.decode(tokens[:begun])):].rstrip("\ufffd")
        code, out, err = p.run("sample", run, "--prompt", prompt, "--temperature", 0, "--bytes", 200, "--json")
        self.assertEqual(code, 0, err)
        self.assertTrue(json.loads(out)["text"].startswith(expected), (json.loads(out)["text"], expected))
        for likeliest in (["--top-k", 1], ["--top-p", 1e-9]):
            again = p.run("sample", run, "--prompt", prompt, "--temperature", 3, *likeliest, "--bytes", 200, "--json")[1]
            self.assertEqual(json.loads(again)["text"], json.loads(out)["text"])
        wild = p.run("sample", run, "--prompt", prompt, "--temperature", 3, "--bytes", 200, "--json")[1]
        self.assertNotEqual(json.loads(wild)["text"], json.loads(out)["text"])
        code, _, err = p.run("sample", run, "--prompt", prompt, "--top-p", 0)
        self.assertEqual((code, len(err.splitlines())), (2, 1), err)

    def test_frozen_layers_stay(self):
        folder, one, four = self.place("published", "one", "four")
        drawn("llama", folder)
        self.train_on(folder, one, stages=1, freeze="0-2")
        self.train_on(folder, four, stages=4, schedule="zb-v", freeze="0-2")
        self.assertEqual(p.losses(one), p.losses(four))
        trained = p.tensors(one, STEPS)
        self.assertEqual(trained, p.tensors(four, STEPS))
        self.assertFalse([name for name in trained if name.startswith("optimizer") and ".layers.1." in name])
        self.assertTrue([name for name in trained if name.startswith("optimizer") and ".layers.3." in name])
        published = tensors_of(folder)["model.layers.0.self_attn.o_proj.weight"].numpy().tobytes()
        self.assertEqual(trained["layers.1.attention.projection.weight"], published)
        self.refused(["--freeze", "layers from 0 to 4"], folder, freeze="5")
        self.refused(["all frozen"], folder, freeze="0-4")

    def test_a_model_larger_than_the_memory_of_a_rank(self):
        folder, four = self.place("published", "four")
        CASES["large"] = ("Llama", sizes(hidden_size=256, intermediate_size=1024, num_hidden_layers=8))
        self.addCleanup(CASES.pop, "large")
        drawn("large", folder, max_shard_size="4MB")
        limit = 30 << 20
        self.assertGreater(sum(file.stat().st_size for file in folder.glob("*.safetensors")), limit)
        settings = {"steps": 2, "optimizer": "sgd", "momentum": 0, "memory_limit": f"{limit}B"}
        self.train_on(folder, four, stages=4, cut="3,5,7", **settings)
        self.assertLess(max(p.metrics(four)[-1]["peak_memory_bytes"]), limit)
        code, _, err = p.run("train", *p.flags({**TRAINING, "model": folder, "data": self.data, "out": folder.parent / "one",
                                                "steps": 2, "memory-limit": f"{limit}B"}))
        self.assertEqual((code, len(err.splitlines())), (1, 1), err)

    def test_new_weights_in_the_published_shape(self):
        folder, out = self.folder / "published", self.folder / "run"
        drawn("llama", folder)
        (folder / "model.safetensors").unlink()
        self.train_on(folder, out, from_scratch=True, stages=2)
        # Weights that were drawn small know nothing.
        self.assertLess(abs(p.metrics(out)[0]["loss"] - math.log(VOCABULARY)), 0.1)

    def test_wide_tokens_without_an_index_are_refused_until_their_kind_is_known(self):
        folder, wide, narrow = self.place("published", "wide", "narrow")
        CASES["wide"] = ("Llama", sizes(vocab_size=65_600, hidden_size=8, intermediate_size=8, num_hidden_layers=1))
        self.addCleanup(CASES.pop, "wide")
        drawn("wide", folder)
        self.refused(["data.bin has no index", "65600", "--data-kind"], folder)
        settings = {"steps": 1, "batch": 2, "microbatches": 1}
        self.train_on(folder, narrow, **settings, data_kind="tokens16")
        self.tokens.astype("uint32").tofile(self.data)
        self.train_on(folder, wide, **settings, data_kind="tokens32")
        self.assertEqual(p.losses(wide), p.losses(narrow))

    def test_a_prompt_beyond_the_vocabulary_is_refused(self):
        folder = self.folder / "published"
        drawn("llama", folder)
        shutil.copy(TOKENIZERS / "gpt2" / "tokenizer.json", folder)
        code, out, err = p.run("sample", folder, "--prompt", "Stage 3 waits")
        self.assertEqual((code, out, len(err.splitlines())), (2, "", 1), err)
        self.assertRegex(err, f"the token [0-9]+ in a --prompt; expected tokens below {VOCABULARY}")

    def test_the_model_is_planned_for(self):
        folder = self.folder / "published"
        drawn("qwen3_moe", folder)
        (folder / "model.safetensors").unlink()
        code, out, err = p.run("plan", "--model", folder, "--data", self.data, "--context", CONTEXT, "--ranks", 2,
                               "--batch", 4, "--cost", self.folder / "cost.json", "--json")
        self.assertEqual(code, 0, err)
        self.assertEqual(json.loads((self.folder / "cost.json").read_text())["model"]["name"], "published")

    def test_a_model_is_planned_for_without_data(self):
        folder = self.folder / "published"
        drawn("llama", folder)
        (folder / "model.safetensors").unlink()
        asked = ["plan", "--model", folder, "--context", CONTEXT, "--ranks", 2, "--batch", 4, "--stages-per-rank", 1]
        layers = {}
        for name, more in (("all", []), ("adapters", ["--lora", 4]), ("frozen", ["--freeze", "0-2"]),
                           ("masters", ["--precision", "bf16", "--weights", "bf16"])):
            cost = self.folder / f"{name}.json"
            code, _, err = p.run(*asked, "--cost", cost, *more, "--json")
            self.assertEqual(code, 0, err)
            layers[name] = json.loads(cost.read_text())
        block = {name: next(layer for layer in costs["layers"] if layer["name"] == "3 block" and "sizes" in layer
                            or layer["name"] == "1 block")
                 for name, costs in layers.items()}
        weights = block["all"]["gradient_bytes"]
        tables = 2 * 4 * CONTEXT * 8  # of rotary positions, for heads of 8 features
        self.assertEqual((block["all"]["parameter_bytes"], block["all"]["optimizer_bytes"]),
                         (weights + tables, 2 * weights))
        learned = block["adapters"]["gradient_bytes"]
        self.assertEqual(block["adapters"]["parameter_bytes"], weights + learned + tables)
        self.assertEqual(block["adapters"]["optimizer_bytes"], 2 * learned)
        self.assertEqual((block["frozen"]["gradient_bytes"], block["frozen"]["optimizer_bytes"]), (0, 0))
        # Half the bytes, and beside the two moments a copy in float32.
        self.assertEqual((block["masters"]["parameter_bytes"], block["masters"]["optimizer_bytes"]), (weights / 2, 3 * weights))
        self.assertEqual([layers[name].get("layers_without_gradient", 0) for name in layers], [0, 1, 3, 0])
        code, _, err = p.run("train", "--model", folder, "--from-scratch", "--out", self.folder / "run")
        self.assertEqual((code, len(err.splitlines())), (2, 1), err)
        self.assertIn("no --data", err)

    def test_bad_folders_are_refused_in_one_line(self):
        folder = self.folder / "published"
        drawn("llama", folder)
        config = json.loads((folder / "config.json").read_text())
        for words, changes in (
                (["model_type", '"bloom"', "gpt2, llama, mistral, mixtral, qwen2, qwen3, qwen3_moe"], {"model_type": "bloom"}),
                (["hidden_act", '"relu2"', "silu"], {"hidden_act": "relu2"}),
                (["rope_type", '"yarn"', "llama3"], {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}),
                (["num_hidden_layers is -3"], {"num_hidden_layers": -3}),
                (["hidden_size is null"], {"hidden_size": None}),
                (["quantization_config", '"awq"'], {"quantization_config": {"quant_method": "awq"}}),
                (["missing (model.layers.3.", "llama of 4 layers"], {"num_hidden_layers": 4}),
                (["unexpected (model.layers.2."], {"num_hidden_layers": 2}),
                (["misshapen (model.embed_tokens.weight is [96, 32] in place of [95, 32]"], {"vocab_size": 95}),
                (["the token 95", "below 80"], {"vocab_size": 80})):
            with self.subTest(words):
                (folder / "config.json").write_text(json.dumps({**config, **changes}))
                extra = {"from-scratch": True} if "below 80" in words else {}
                self.refused(words, folder, **extra)
        (folder / "config.json").write_text(json.dumps(config))
        self.refused(["--layers is 5", "is 3"], folder, layers=5)
        self.refused(["--width is 128", "is 32"], folder, width=128)  # the default of our own
        weights = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(weights[:-100])
        self.refused(["model.safetensors"], folder)
        (folder / "model.safetensors").unlink()
        self.refused(["has no model.safetensors", "--from-scratch"], folder)
        (folder / "config.json").write_text("{")
        self.refused(["config.json"], folder)
        (folder / "config.json").unlink()
        self.refused(["has no config.json"], folder)
        self.refused(["--model is \"lama\"", "gpt, mlp, convnet"], "lama")

    def test_the_head_of_a_tied_model_may_stand_there_once_more(self):
        folder, plain, with_head = self.place("published", "plain", "with-head")
        drawn("qwen2", folder)
        self.train_on(folder, plain, steps=1)
        tensors = tensors_of(folder)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        self.train_on(folder, with_head, steps=1)
        self.assertEqual(p.losses(with_head), p.losses(plain))
        # transformers does not tie them then.
        tensors["lm_head.weight"][5, 3] += 1
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        self.refused(["lm_head.weight", "another matrix than model.embed_tokens.weight", "tie_word_embeddings"], folder)
        (folder / "config.json").write_text((folder / "config.json").read_text().replace(
            '"tie_word_embeddings": true', '"tie_word_embeddings": false'))
        self.check_untied(folder)

    def check_untied(self, folder):
        window = self.tokens[:65]
        window.tofile(self.data)
        code, out, err = p.run("eval", folder, "--data", self.data, "--json")
        self.assertEqual(code, 0, err)
        with torch.no_grad():
            expected = loss_of(loaded(folder), torch.from_numpy(window.astype("int64"))[None], 1).item()
        self.assertLess(abs(json.loads(out)["loss_nats"] - expected), 1e-6)

    def test_bad_indices_are_refused_in_one_line(self):
        folder = self.folder / "published"
        drawn("llama", folder, max_shard_size="20KB")
        index = folder / "model.safetensors.index.json"
        good = json.loads(index.read_text())
        name, file = next(iter(good["weight_map"].items()))
        for words, changes in (([".safetensors of its folder"], {name: "../" + file}),
                               ([name, "the index places there"], {name: min(good["weight_map"].values())}),
                               (["missing.safetensors"], {name: "missing.safetensors"})):
            with self.subTest(words):
                index.write_text(json.dumps({**good, "weight_map": {**good["weight_map"], **changes}}))
                self.refused(words, folder)

    def test_export_refuses_what_is_no_published_model(self):
        out, folder, other = self.folder / "gpt", self.folder / "published", self.folder / "run"
        self.must_train(out)
        drawn("llama", folder)
        self.train_on(folder, other, steps=1)
        for words, arguments in ((["a run of gpt"], [out, "-o", self.folder / "new"]),
                                 (["is there already"], [other, "-o", folder]),
                                 (["holds no run"], [folder, "-o", self.folder / "new"])):
            before = sorted(self.folder.rglob("*"))
            code, told, err = p.run("export", *arguments)
            self.assertEqual((code, told, len(err.splitlines())), (2, "", 1), err)
            for word in words:
                self.assertIn(word, err)
            self.assertEqual(sorted(self.folder.rglob("*")), before)


if __name__ == "__main__":
    unittest.main()
