"""A small network of transformers, described for measure_layers.py and for an exported train.py."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

WORDS = 512
LENGTH = 64
TIED = True


def network():
    torch.manual_seed(1)
    # The head has the embedding's weights, as transformers has it by default.
    model = GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_positions=LENGTH, n_embd=128, n_layer=8, n_head=4, resid_pdrop=0,
                                       embd_pdrop=0, attn_pdrop=0, tie_word_embeddings=TIED))
    return model.train()


def inputs(samples):
    return torch.randint(WORDS, (samples, LENGTH))


def targets(samples):
    return torch.randint(WORDS, (samples, LENGTH))


def loss(output, target):
    return torch.nn.functional.cross_entropy(output.flatten(0, 1), target.flatten())
