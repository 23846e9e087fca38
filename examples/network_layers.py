"""A PyTorch network as the layers that a pipeline cuts between: a list of names and modules, each from one tensor to one tensor.

    layers = layers_of(transformers.LlamaForCausalLM(config))
    layers = layers_of([torch.nn.Linear(512, 512), torch.nn.ReLU()])

A file that describes a network for measure_layers.py and for an exported train.py defines

    network()               the whole model (Llama or GPT-2 of transformers), a list of modules, or a list of (name, module)
    inputs(samples)         a tensor whose first dimension is the samples
    targets(samples)        the same for what the loss compares with
    loss(output, target)    a mean over the samples

Every process calls network() and must get the same weights: set torch.manual_seed in it.
"""

import importlib.util
import os
import sys

import torch


class Rotated(torch.nn.Module):
    """A block of Llama from hidden states to hidden states. The rotary tables are computed once for each length."""

    def __init__(self, block, rotary, mask):
        super().__init__()
        self.block, self.mask = block, mask
        self.rotary = [rotary]  # in a list, as it is no part of any one block
        self.tables = {}

    def forward(self, hidden):
        key = (hidden.shape[1], hidden.dtype, hidden.device)
        if key not in self.tables:
            with torch.no_grad():
                places = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
                self.tables[key] = (self.rotary[0].to(hidden.device)(hidden, position_ids=places), places)
        tables, places = self.tables[key]
        output = self.block(hidden, attention_mask=self.mask(hidden), position_ids=places, position_embeddings=tables)
        return output[0] if isinstance(output, tuple) else output


class Positioned(torch.nn.Module):
    """GPT-2's embeddings of words and places."""

    def __init__(self, words, places, dropout):
        super().__init__()
        self.words, self.places, self.dropout = words, places, dropout

    def forward(self, tokens):
        return self.dropout(self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device)))


class Attended(torch.nn.Module):
    """A block of GPT-2 from hidden states to hidden states."""

    def __init__(self, block, mask):
        super().__init__()
        self.block, self.mask = block, mask

    def forward(self, hidden):
        output = self.block(hidden, attention_mask=self.mask(hidden))
        return output[0] if isinstance(output, tuple) else output


def causal_mask(config):
    """None where the attention masks by itself, as torch's does; transformers' own code of the attention needs a tensor."""
    if getattr(config, "_attn_implementation", "sdpa") != "eager":
        return lambda hidden: None

    def mask(hidden):
        length = hidden.shape[1]
        hidden_from_later = torch.full((length, length), torch.finfo(hidden.dtype).min, dtype=hidden.dtype, device=hidden.device)
        return hidden_from_later.triu(1)[None, None]

    return mask


def layers_of_llama(model):
    body, mask = model.model, causal_mask(model.config)
    return [("model.embed_tokens", body.embed_tokens),
            *((f"model.layers.{index}", Rotated(block, body.rotary_emb, mask)) for index, block in enumerate(body.layers)),
            ("model.norm", body.norm), ("lm_head", model.lm_head)]


def layers_of_gpt2(model):
    body, mask = model.transformer, causal_mask(model.config)
    return [("transformer.wte", Positioned(body.wte, body.wpe, body.drop)),
            *((f"transformer.h.{index}", Attended(block, mask)) for index, block in enumerate(body.h)),
            ("transformer.ln_f", body.ln_f), ("lm_head", model.lm_head)]


KNOWN = {"LlamaForCausalLM": layers_of_llama, "GPT2LMHeadModel": layers_of_gpt2}


def layers_of(network):
    """(name, module) of each layer in order; the names are those of the model's modules."""
    if isinstance(network, torch.nn.Sequential):
        return list(network.named_children())
    if isinstance(network, (list, tuple)):
        return [entry if isinstance(entry, tuple) else (f"{index} {type(entry).__name__}", entry)
                for index, entry in enumerate(network)]
    of_kind = KNOWN.get(type(network).__name__)
    if of_kind is None:
        raise ValueError(f"got a {type(network).__name__}, expected one of {', '.join(KNOWN)}, a Sequential, or a list of modules from "
                         "one tensor to one tensor; let network() return such a list")
    return of_kind(network)


def load_network(path):
    """The module of the file that describes a network."""
    path = os.path.abspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"there is no {path}; name the file that describes the network")
    sys.path.insert(0, os.path.dirname(path))
    description = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    missing = [name for name in ("network", "inputs", "targets", "loss") if not hasattr(module, name)]
    if missing:
        raise AttributeError(f"{path} defines no {', '.join(missing)}; expected network, inputs, targets and loss")
    return module
