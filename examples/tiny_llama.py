"""A small network of transformers, described for measure_layers.py and for an exported train.py."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

WORDS = 512
LENGTH = 64


def network():
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, hidden_size=128, intermediate_size=344, num_hidden_layers=8,
                                         num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=LENGTH))
    return model.train()


def inputs(samples):
    return torch.randint(WORDS, (samples, LENGTH))


def targets(samples):
    return torch.randint(WORDS, (samples, LENGTH))


def loss(output, target):
    return torch.nn.functional.cross_entropy(output.flatten(0, 1), target.flatten())
