"""Published models have the numbers of transformers, and the bits of one stage."""

import json
import shutil
import unittest
import warnings

import penstock_process as p
import published_models as m
from published_models import (CASES, CONTEXT, GPT2, STEPS, TOKENIZERS, TRAINING, drawn, learning_rate, loaded,
                              loss_of, numpy, sizes, tensors_of, tokenizers, torch, transformers)


class Models(m.Case):
    def test_logits_and_loss_are_those_of_transformers(self):
        for case in CASES:
            with self.subTest(case):
                (folder,) = self.place("published")
                model = drawn(case, folder)
                windows = self.windows(range(0, 80, 20))
                with torch.no_grad():
                    expected = model(windows[:, :-1]).logits
                got = self.logits(folder, windows[:, :-1].contiguous())
                self.assertLess((got - expected).abs().max() / expected.abs().max(), 1e-4)
                self.check_evaluation(folder, model)

    def check_evaluation(self, folder, model):
        """On one window of as many tokens as the model has positions."""
        text = self.tokens[:model.config.max_position_embeddings + 1]
        data = folder.parent / "window.bin"
        text.tofile(data)
        window = torch.from_numpy(text.astype(numpy.int64))[None]
        with torch.no_grad():
            expected = loss_of(model, window, 1).item()
        code, out, err = p.run("eval", folder, "--data", data, "--json")
        self.assertEqual(code, 0, err)
        self.assertEqual(json.loads(out)["samples"], 1)
        self.assertLess(abs(json.loads(out)["loss_nats"] - expected), 1e-6)

    def test_ten_steps_are_those_of_a_plain_loop(self):
        for case in CASES:
            with self.subTest(case):
                folder, out, exported = self.place("published", "run", "exported")
                model = drawn(case, folder)
                self.train_on(folder, out, stages=2)
                self.check_against_loop(model, out, exported)

    def check_against_loop(self, model, out, exported):
        decayed = [weight for weight in model.parameters() if weight.dim() >= 2]
        others = [weight for weight in model.parameters() if weight.dim() < 2]
        optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0}],
                                      betas=(0.9, 0.95), eps=1e-8)
        for step, (samples, metrics) in enumerate(zip(self.order(), p.metrics(out), strict=True)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step)
            loss = loss_of(model, self.windows(samples), TRAINING["microbatches"])
            self.assertLess(abs(loss.item() - metrics["loss"]), 1e-6 if step == 0 else 1e-5, f"step {step}")
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), TRAINING["clip"])
            self.assertLess(abs(norm.item() - metrics["grad_norm"]), 1e-4 * norm.item())
            self.assertGreater(norm.item(), TRAINING["clip"], "nothing was clipped")
            optimizer.step()
        code, _, err = p.run("export", out, "-o", exported)
        self.assertEqual(code, 0, err)
        got = loaded(exported).state_dict()
        for name, expected in model.state_dict().items():
            difference = (got[name] - expected).abs()
            if name.endswith("attn.c_attn.bias"):
                # A bias of all keys moves all scores alike, which changes nothing: its gradient is rounding alone, and
                # AdamW divides rounding by rounding.
                keys = slice(len(expected) // 3, 2 * len(expected) // 3)
                difference[keys] = 0
            self.assertLess(difference.max(), 1e-4, name)

    def test_export_and_reload_are_equal_to_the_bit(self):
        for case in CASES:
            with self.subTest(case):
                folder, out, exported = self.place("published", "run", "exported")
                drawn(case, folder, max_shard_size="20KB")
                self.train_on(folder, out, stages=3, steps=1, learning_rate=0, weight_decay=0)
                code, _, err = p.run("export", out, "-o", exported, "--max-shard-size", "9KB")
                self.assertEqual(code, 0, err)
                before, after = tensors_of(folder), tensors_of(exported)
                self.assertEqual(before.keys(), after.keys())
                for name, tensor in before.items():
                    self.assertTrue(torch.equal(tensor, after[name]), name)
                self.assertGreater(len(list(exported.glob("*.safetensors"))), 2)
                self.assertEqual({f.name for f in exported.iterdir() if f.suffix == ".json" and "index" not in f.name},
                                 {f.name for f in folder.iterdir() if f.suffix == ".json" and "index" not in f.name})
                loaded(exported)
                again = out.parent / "again"
                self.train_on(exported, again, stages=1, steps=1, learning_rate=0, weight_decay=0)
                self.assertEqual(p.losses(out), p.losses(again))

    def test_other_types_are_read_and_written(self):
        for type_, word in ((torch.bfloat16, "bf16"), (torch.float16, "fp16")):
            with self.subTest(word):
                folder, out, exported = self.place("published", "run", "exported")
                drawn("qwen3", folder).to(type_).save_pretrained(folder)
                model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
                self.train_on(folder, out, steps=1, learning_rate=0, weight_decay=0)
                with torch.no_grad():
                    loss = loss_of(model, self.windows(self.order()[0]), 4).item()
                self.assertLess(abs(p.metrics(out)[0]["loss"] - loss), 1e-6)
                self.assertEqual(p.run("export", out, "-o", exported, "--type", word)[0], 0)
                before, after = tensors_of(folder), tensors_of(exported)
                for name, tensor in before.items():
                    self.assertEqual(after[name].dtype, type_)
                    self.assertTrue(torch.equal(tensor, after[name]), name)
                self.assertEqual(loaded(exported).dtype, type_)

    def test_the_bits_are_those_of_one_stage(self):
        for case in ("llama tied, llama3 positions", "qwen3_moe with dense layers, balanced", "gpt2"):
            folder, one = self.place("published", "one")
            drawn(case, folder)
            settings = {"dropout": 0.1, "steps": 6}
            self.train_on(folder, one, stages=1, **settings)
            for name, changes in (("two", {"stages": 2}), ("three", {"stages": 3}), ("four", {"stages": 4}),
                                  ("zb-v", {"stages": 4, "schedule": "zb-v"}),
                                  ("recomputed", {"stages": 2, "recompute": "full"}),
                                  ("processes", {"stages": 2, "processes": 2})):
                with self.subTest(case, cut=name):
                    out = self.train_on(folder, one.parent / name, **settings, **changes)
                    self.assertEqual(p.losses(out), p.losses(one))
                    self.assertEqual(p.tensors(out, 6), p.tensors(one, 6))

    def test_adapters_are_those_of_a_plain_loop(self):
        for case, rank, targets in (("llama tied, llama3 positions", 4, ["q_proj", "v_proj"]),
                                    ("gpt2", 4, ["c_attn"]),
                                    ("gpt2 untied, another inner width", 3, ["c_fc", "c_proj"]),
                                    ("qwen3_moe with dense layers, balanced", 3, ["k_proj", "o_proj", "up_proj", "down_proj"])):
            with self.subTest(case):
                folder, begun, out, adapters, merged = self.place("published", "begun", "run", "adapters", "merged")
                model = drawn(case, folder)
                lora = {"lora": rank, "lora_alpha": 12}
                if targets != ["c_attn"]:  # a gpt2's default
                    lora["lora_targets"] = ",".join(targets)
                self.train_on(folder, begun, steps=1, learning_rate=0, **lora)
                self.assertEqual(p.run("export", begun, "-o", begun.parent / "first")[0], 0)
                scale = 12 / rank
                self.adapt(model, tensors_of(begun.parent / "first"), scale)
                self.train_on(folder, out, stages=2, **lora)
                self.check_adapters(model, out, adapters, merged, targets)
                self.check_cuts(folder, out, **lora)

    def adapt(self, model, tensors, scale):
        """As PEFT names them."""
        class Sum(torch.nn.Module):
            def __init__(self, narrow, widen):
                super().__init__()
                self.narrow, self.widen = torch.nn.Parameter(narrow), torch.nn.Parameter(widen)

            def forward(self, weight):
                added = self.widen @ self.narrow * scale
                return weight + (added.T if transposed else added)

        transposed = model.config.model_type == "gpt2"
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for name, narrow in tensors.items():
            if name.endswith(".lora_A.weight"):
                module = model.get_submodule(name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
                widen = tensors[name.replace("lora_A", "lora_B")]
                self.assertFalse(widen.any())
                torch.nn.utils.parametrize.register_parametrization(module, "weight", Sum(narrow, widen))

    def check_adapters(self, model, out, adapters, merged, targets):
        learned = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(learned, weight_decay=0.1, betas=(0.9, 0.95), eps=1e-8)
        for step, (samples, metrics) in enumerate(zip(self.order(), p.metrics(out), strict=True)):
            optimizer.param_groups[0]["lr"] = learning_rate(step)
            loss = loss_of(model, self.windows(samples), TRAINING["microbatches"])
            self.assertLess(abs(loss.item() - metrics["loss"]), 1e-5, f"step {step}")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learned, TRAINING["clip"])
            optimizer.step()
        self.assertEqual(p.run("export", out, "-o", adapters)[0], 0)
        config = json.loads((adapters / "adapter_config.json").read_text())
        self.assertEqual(config["peft_type"], "LORA")
        self.assertEqual(config["fan_in_fan_out"], model.config.model_type == "gpt2")
        got = tensors_of(adapters)
        self.assertEqual(2 * len(got), 2 * len(learned))
        for name, tensor in got.items():
            path = name.removeprefix("base_model.model.").removesuffix(".weight")
            own = model.get_submodule(path.rsplit(".", 1)[0]).parametrizations.weight[0]
            expected = own.narrow if path.endswith("lora_A") else own.widen
            self.assertLess((tensor - expected).abs().max(), 1e-4, name)
            self.assertTrue(tensor.any(), name)
        self.assertEqual(p.run("export", out, "-o", merged, "--merge")[0], 0)
        with torch.no_grad():
            window = self.windows([3])[:, :-1]
            expected = model(window).logits
            self.assertLess((loaded(merged)(window).logits - expected).abs().max() / expected.abs().max(), 1e-4)

    @unittest.skipIf(m.peft is None, "peft is not installed: script/bootstrap --tests installs it")
    def test_adapters_are_loaded_by_peft(self):
        for case, targets in (("llama linear positions, biases, head size", "q_proj,k_proj,o_proj,gate_proj,down_proj"),
                              ("gpt2 untied, another inner width", "c_attn,c_fc,c_proj"),
                              ("mixtral", "q_proj,v_proj"),
                              # Words that PEFT would take for the experts' matrices.
                              ("qwen3_moe with dense layers, balanced", "k_proj,up_proj,down_proj"),
                              ("qwen3_moe with dense layers, balanced", "gate_proj,up_proj")):
            with self.subTest(case, targets=targets):
                folder, out, adapters, merged = self.place("published", "run", "adapters", "merged")
                drawn(case, folder)
                self.train_on(folder, out, steps=3, stages=2, warmup=0, learning_rate=0.05, lora=3, lora_alpha=7,
                              lora_targets=targets)
                self.assertEqual(p.run("export", out, "-o", adapters)[0], 0)
                self.assertEqual(p.run("export", out, "-o", merged, "--merge")[0], 0)
                with warnings.catch_warnings():
                    warnings.filterwarnings("error", message=".*(adapter keys|did not match)")
                    adapted = m.peft.PeftModel.from_pretrained(loaded(folder), str(adapters)).eval()
                window = self.windows([3])[:, :-1]
                with torch.no_grad():
                    got, expected, base = (model(window).logits for model in (adapted, loaded(merged), loaded(folder)))
                self.assertLess((got - expected).abs().max() / expected.abs().max(), 1e-5)
                self.assertGreater((got - base).abs().max() / base.abs().max(), 1e-3)

    def check_cuts(self, folder, out, **changes):
        for name, cut in (("one", {"stages": 1}), ("zb-v", {"stages": 4, "schedule": "zb-v"}),
                          ("recomputed", {"stages": 3, "recompute": "full"})):
            other = self.train_on(folder, out.parent / f"cut-{name}", **changes, **cut)
            self.assertEqual(p.losses(other), p.losses(out))
            self.assertEqual(p.tensors(other, STEPS), p.tensors(out, STEPS))

    def test_documents_are_kept_apart(self):
        tokenizer = TOKENIZERS / "gpt2" / "tokenizer.json"
        vocabulary = tokenizers.Tokenizer.from_file(str(tokenizer)).get_vocab_size()
        end = tokenizers.Tokenizer.from_file(str(tokenizer)).token_to_id("<|endoftext|>")
        draw = numpy.random.default_rng(9)
        self.tokens = draw.integers(0, vocabulary, 400, dtype=numpy.uint16)
        self.tokens[draw.random(400) < 0.15] = end
        self.tokens.tofile(self.data)
        for family, shape in (("GPT2", GPT2), ("Llama", sizes()), ("Mistral", sizes(sliding_window=4))):
            with self.subTest(family):
                folder, apart, joined, masked = self.place("published", "apart", "joined", "masked")
                CASES["of documents"] = (family, {**shape, "vocab_size": vocabulary})
                self.addCleanup(CASES.pop, "of documents", None)
                model = drawn("of documents", folder)
                shutil.copy(tokenizer, folder)
                self.train_on(folder, apart, stages=2, documents="apart")
                losses = [self.loss_by_document(model, self.windows([sample])[0], end) for sample in self.order()[0]]
                expected = sum(loss for loss, _ in losses) / sum(count for _, count in losses)
                self.assertLess(abs(p.metrics(apart)[0]["loss"] - expected), 2e-6)
                self.train_on(folder, joined, steps=1)
                self.assertGreater(abs(p.metrics(joined)[0]["loss"] - expected), 1e-3)
                self.train_on(folder, masked, steps=1, documents="masked")
                difference = abs(p.metrics(masked)[0]["loss"] - expected)
                # Rotary positions are relative: where a document begins changes nothing but learned ones.
                (self.assertGreater if family == "GPT2" else self.assertLess)(difference, 1e-5)
                self.check_cuts(folder, apart, documents="apart")

    def loss_by_document(self, model, window, end):
        loss, count = 0.0, 0
        begins = [0, *[place + 1 for place in range(CONTEXT - 1) if window[place] == end], CONTEXT]
        for begin, stop in zip(begins, begins[1:]):
            targets = window[begin + 1:stop + 1].clone()
            targets[window[begin:stop] == end] = -100
            with torch.no_grad():
                logits = model(window[None, begin:stop]).logits[0]
            loss += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
            count += (targets != -100).sum().item()
        return loss, count


if __name__ == "__main__":
    unittest.main()
