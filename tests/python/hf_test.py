"""Models of transformers as layers: the same bits on any cut, and the numbers of a plain loop."""

import sys
import tempfile
import unittest
import warnings
from pathlib import Path

import penstock as ps
import torch
import transformers
from torchrun import torchrun

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=False),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=True),
    # A window that is shorter than the text.
    "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=8, tie_word_embeddings=False),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=64, n_embd=32, n_layer=3, n_head=4, n_positions=32, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0
    ),
}


def model(kind):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]())


def tokens():
    return torch.randint(64, (8, 16), generator=torch.Generator().manual_seed(1))


def trained(kind, schedule, ranks):
    """The losses of some steps, and the weights of this process's layers behind them."""
    with ps.Pipeline(ps.hf.layers(model(kind)), ps.hf.loss, schedule=schedule, ranks=ranks, microbatches=4, optimizer=ps.AdamW(lr=1e-2), clip=1.0) as pipe:
        return [pipe.step(tokens(), tokens()).loss for _ in range(3)], pipe.state_dict(), (pipe.process, pipe.processes)


# Of which the second has a tie that goes from the first process to the last.
IN_PROCESSES = [(kind, *layout) for kind in ("llama", "gpt2") for layout in (("1f1b", 2), ("zb-v", 2), ("1f1b", 4))]


def work(folder):
    """In each of two processes of torchrun."""
    for case in IN_PROCESSES:
        losses, state, (process, processes) = trained(*case)
        assert processes == 2
        torch.save((losses, state), Path(folder, f"{case}.{process}"))


class Models(unittest.TestCase):
    def setUp(self):
        self.tokens = tokens()

    def check(self, kind):
        plain = model(kind)
        optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
        expected = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = plain(self.tokens, labels=self.tokens).loss
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
        found = []
        for schedule, ranks in [("1f1b", 1), ("1f1b", 2), ("zb-v", 2), ("1f1b", 4)]:
            own = model(kind)
            tied = own.lm_head.weight is own.get_input_embeddings().weight
            layers = ps.hf.layers(own)
            with ps.Pipeline(layers, ps.hf.loss, schedule=schedule, ranks=ranks, microbatches=4, optimizer=ps.SGD(lr=0.1)) as pipe:
                found.append([pipe.step(self.tokens, self.tokens).loss for _ in range(3)])
            # What was trained is the model's own, and its tie is still one.
            self.assertEqual(own.lm_head.weight is own.get_input_embeddings().weight, tied)
            for name, tensor in plain.state_dict().items():
                self.assertLess((own.state_dict()[name] - tensor).abs().max().item(), 1e-5, name)
        self.assertEqual(found, [found[0]] * 4)
        for ours, theirs in zip(found[0], expected):
            self.assertAlmostEqual(ours, theirs, delta=1e-5)

    def test_llama(self):
        self.check("llama")

    def test_qwen2(self):
        self.check("qwen2")

    def test_qwen3(self):
        self.check("qwen3")

    def test_mistral(self):
        self.check("mistral")

    def test_gpt2(self):
        self.check("gpt2")

    def test_two_processes_have_the_bits_of_threads_and_of_one_stage(self):
        with tempfile.TemporaryDirectory() as folder:
            ended = torchrun(__file__, "work", folder)
            self.assertEqual(ended.returncode, 0, ended.stderr[-3000:])
            found = {case: [torch.load(Path(folder, f"{case}.{process}")) for process in range(2)] for case in IN_PROCESSES}
        for case in IN_PROCESSES:
            kind = case[0]
            losses, state, _ = trained(kind, "1f1b", 1)
            of_threads = trained(*case)
            self.assertEqual(of_threads[0], losses, case)
            self.assertEqual({name for _, own in found[case] for name in own}, set(state), case)
            for process_losses, own in (*found[case], of_threads[:2]):
                self.assertEqual(process_losses, losses, case)
                for name, tensor in own.items():
                    self.assertTrue(torch.equal(tensor, state[name]), f"{case} {name}")
            self.assertFalse(set(found[case][0][1]) & set(found[case][1][1]), case)

    def test_attention_without_sdpa_is_causal_too(self):
        own = model("llama")
        own.config._attn_implementation = "eager"
        with ps.Pipeline(ps.hf.layers(own), ps.hf.loss, ranks=2, microbatches=4) as pipe, torch.no_grad():
            expected = model("llama")(self.tokens, labels=self.tokens).loss.item()
            self.assertAlmostEqual(pipe.evaluate(self.tokens, self.tokens).loss, expected, delta=1e-5)

    def test_others_are_refused(self):
        with self.assertRaisesRegex(ps.BadInput, "kind 'Linear'"):
            ps.hf.layers(torch.nn.Linear(2, 2))


if __name__ == "__main__":
    warnings.simplefilter("ignore", FutureWarning)
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2])
    else:
        unittest.main()
