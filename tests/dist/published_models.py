"""Tiny models of each published family, which transformers draws and writes, and what a test of them needs."""

import math
import os
import pathlib
import subprocess
import tempfile
import unittest
import warnings

import penstock_process as p

try:
    import numpy
    import tokenizers
    import torch
    import transformers
    from safetensors import safe_open
    from safetensors.torch import save_file
except ImportError:
    numpy = tokenizers = torch = transformers = safe_open = save_file = None

try:
    import peft
except ImportError:
    peft = None

TOKENIZERS = pathlib.Path(__file__).resolve().parents[1] / "unit" / "tokenizer" / "data"
PROBE = os.environ["PENSTOCK_MODEL_PROBE"]
VOCABULARY, CONTEXT = 96, 16
STEPS, BATCH, SEED = 10, 8, 7
TRAINING = {"steps": STEPS, "batch": BATCH, "microbatches": 4, "context": CONTEXT, "held-out": 0, "learning-rate": 1e-3,
            "warmup": 3, "seed": SEED, "checkpoint-every": 0, "eval-every": 0, "clip": 0.5}


def sizes(**changes):
    return {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1,
            "eos_token_id": 2, "pad_token_id": None, **changes}


LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 32, "bos_token_id": 1,
        "eos_token_id": 2}
EXPERTS = {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}

# Family and shape of each case; those with a name that ends in "balanced" have an auxiliary loss.
CASES = {
    "gpt2": ("GPT2", GPT2),
    "gpt2 untied, another inner width": ("GPT2", {**GPT2, "tie_word_embeddings": False, "n_inner": 40}),
    "llama": ("Llama", sizes()),
    "llama tied, llama3 positions": ("Llama", sizes(tie_word_embeddings=True, rope_parameters=LLAMA3)),
    "llama linear positions, biases, head size": ("Llama", sizes(
        rope_parameters={"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}, attention_bias=True,
        mlp_bias=True, head_dim=12, num_key_value_heads=1)),
    "mistral with a window": ("Mistral", sizes(sliding_window=5)),
    "mistral": ("Mistral", sizes(sliding_window=None, head_dim=16)),
    "qwen2": ("Qwen2", sizes(tie_word_embeddings=True)),
    "qwen2 with windows in some layers": ("Qwen2", sizes(use_sliding_window=True, sliding_window=4, max_window_layers=1)),
    "qwen3": ("Qwen3", sizes(head_dim=16)),
    "qwen3 tied, one group": ("Qwen3", sizes(head_dim=8, num_key_value_heads=1, tie_word_embeddings=True)),
    "qwen3_moe": ("Qwen3Moe", sizes(**EXPERTS, norm_topk_prob=True)),
    "qwen3_moe with dense layers, balanced": ("Qwen3Moe", sizes(**EXPERTS, mlp_only_layers=[1], output_router_logits=True,
                                                                router_aux_loss_coef=0.05)),
    "mixtral": ("Mixtral", sizes(num_local_experts=3, num_experts_per_tok=2)),
    "llama of another activation and base": ("Llama", sizes(
        hidden_act="gelu_pytorch_tanh", rms_norm_eps=1e-2, rope_parameters={"rope_type": "default", "rope_theta": 123.0})),
    "qwen3 with biases, windows in some layers": ("Qwen3", sizes(
        head_dim=16, attention_bias=True, use_sliding_window=True, sliding_window=3, max_window_layers=2)),
    "qwen3_moe with windows, every second layer dense": ("Qwen3Moe", sizes(
        **EXPERTS, decoder_sparse_step=2, use_sliding_window=True, sliding_window=3)),
    "mixtral with a window, head size": ("Mixtral", sizes(
        num_local_experts=4, num_experts_per_tok=3, sliding_window=3, head_dim=16)),
}


def drawn(case, folder, **saving):
    """The case's model, with every weight drawn so that none is a mere 0 or 1, and its folder."""
    family, shape = CASES[case]
    torch.manual_seed(3)
    config = getattr(transformers, family + "Config")(**shape)
    model = getattr(transformers, "GPT2LMHeadModel" if family == "GPT2" else family + "ForCausalLM")(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
            elif "embed" not in name and "wte" not in name:
                weight.add_(torch.randn_like(weight) * 0.1)
    model.eval()
    model.save_pretrained(folder, **saving)
    return model


def loaded(folder):
    """As transformers loads it, which must not warn."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not caught, [str(warning.message) for warning in caught]
    assert not any(report.values()), report
    return model.eval()


def tensors_of(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            found.update({name: opened.get_tensor(name) for name in opened.keys()})
    return found


def learning_rate(step):
    if step < 3:
        return 1e-3 * (step + 1) / 3
    progress = min(1.0, (step - 3) / (STEPS - 3))
    return 1e-3 * (0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2)


def loss_of(model, windows, microbatches):
    """The mean over microbatches of the same size: what transformers gives for each."""
    losses = [model(input_ids=part[:, :-1], labels=part[:, 1:], shift_labels=part[:, 1:].contiguous()).loss
              for part in windows.chunk(microbatches)]
    return sum(losses) / len(losses)


@unittest.skipIf(transformers is None, "transformers is not installed: script/bootstrap --tests installs it")
class Case(p.Case):
    def setUp(self):
        super().setUp()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(1)
        self.tokens = numpy.random.default_rng(5).integers(0, VOCABULARY, 400, dtype=numpy.uint16)
        self.data = self.folder / "data.bin"
        self.tokens.tofile(self.data)

    def place(self, *names):
        """Paths in a folder that is new each time."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        return [folder / name for name in names]

    def windows(self, samples):
        rows = [self.tokens[sample:sample + CONTEXT + 1].astype(numpy.int64) for sample in samples]
        return torch.from_numpy(numpy.stack(rows))

    def train_on(self, model, out, data=None, **changes):
        settings = {"model": model, "data": data or self.data, "out": out, **TRAINING}
        settings.update({name.replace("_", "-"): value for name, value in changes.items()})
        code, _, err = p.run("train", *p.flags(settings))
        self.assertEqual(code, 0, err)
        return out

    def logits(self, folder, windows):
        tokens, output = self.folder / "tokens", self.folder / "logits"
        windows.numpy().tofile(tokens)
        subprocess.run([PROBE, "logits", folder, tokens, output], check=True, timeout=120)
        return torch.from_numpy(numpy.fromfile(output, dtype=numpy.float32)).reshape(*windows.shape, VOCABULARY)

    def order(self):
        lines = subprocess.run([PROBE, "order", str(len(self.tokens) - CONTEXT), str(STEPS), str(BATCH), str(SEED)],
                               check=True, capture_output=True, text=True).stdout.splitlines()
        return [[int(sample) for sample in line.split()] for line in lines]

    def refused(self, words, model, **changes):
        before = sorted(self.folder.rglob("*"))
        settings = {**TRAINING, "model": model, "data": self.data, "out": self.folder / "refused"}
        settings.update({name.replace("_", "-"): value for name, value in changes.items()})
        code, out, err = p.run("train", *p.flags(settings))
        self.assertEqual((code, out), (2, ""), err)
        self.assertEqual(len(err.splitlines()), 1, err)
        for word in ("expected", *words):
            self.assertIn(word, err)
        self.assertEqual(sorted(self.folder.rglob("*")), before, "something was written")
