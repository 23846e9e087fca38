"""Models of transformers as lists of layers: Llama, Qwen 2 and 3, Mistral and GPT-2.

    model = transformers.AutoModelForCausalLM.from_config(config)
    pipe = ps.Pipeline(ps.hf.layers(model), ps.hf.loss, ranks=2, microbatches=8)
    pipe.step(tokens, labels)              # both [samples, length]; a label of -100 is left out

The layers hold the model's own modules: what is trained are the model's weights.
"""

from __future__ import annotations

from typing import Dict, Tuple

import torch
import torch.nn.functional as F
from torch import nn

from penstock.errors import BadInput


class _Embedding(nn.Module):
    """Tokens [samples, length] into hidden states [samples, length, width]."""

    def __init__(self, embed_tokens: nn.Module):
        super().__init__()
        self.embed_tokens = embed_tokens

    def forward(self, tokens):
        return self.embed_tokens(tokens)


class _Block(nn.Module):
    """One decoder layer, with the rotary tables made where they are needed: no cut sends them along."""

    def __init__(self, block: nn.Module, rotary: nn.Module, config):
        super().__init__()
        self.block = block
        self.config = config
        # Not a submodule: every block shares it, and it has no parameter.
        self._tables = (rotary,)

    def forward(self, hidden):
        positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
        tables = self._tables[0](hidden, position_ids=positions)
        returned = self.block(
            hidden,
            attention_mask=_mask(self.config, getattr(self.block, "attention_type", None), hidden),
            position_ids=positions,
            position_embeddings=tables,
            use_cache=False,
        )
        return returned[0] if isinstance(returned, tuple) else returned


def _mask(config, attention_type, hidden):
    """Causal attention needs none that is written out, unless a window is shorter than the text."""
    window = getattr(config, "sliding_window", None)
    if attention_type == "full_attention" or not window or hidden.shape[1] <= window:
        return None if config._attn_implementation == "sdpa" else _band(hidden, hidden.shape[1])
    return _band(hidden, window)


def _band(hidden, window):
    places = torch.arange(hidden.shape[1], device=hidden.device)
    behind = places.unsqueeze(1) - places.unsqueeze(0)
    allowed = (behind >= 0) & (behind < window)
    mask = torch.zeros(allowed.shape, dtype=hidden.dtype, device=hidden.device)
    return mask.masked_fill(~allowed, torch.finfo(hidden.dtype).min)[None, None]


class _Head(nn.Module):
    """The last norm and the projection to logits [samples, length, vocabulary]."""

    def __init__(self, norm: nn.Module, lm_head: nn.Module):
        super().__init__()
        self.norm = norm
        self.lm_head = lm_head

    def forward(self, hidden):
        return self.lm_head(self.norm(hidden))


class _Gpt2Embedding(nn.Module):
    def __init__(self, wte, wpe, drop):
        super().__init__()
        self.wte, self.wpe, self.drop = wte, wpe, drop

    def forward(self, tokens):
        return self.drop(self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device)))


class _Gpt2Block(nn.Module):
    def __init__(self, block, config):
        super().__init__()
        self.block, self.config = block, config

    def forward(self, hidden):
        returned = self.block(hidden, attention_mask=_mask(self.config, "full_attention", hidden), use_cache=False)
        return returned[0] if isinstance(returned, tuple) else returned


def _untied_apart(head: nn.Linear, embedding: nn.Embedding) -> nn.Linear:
    """A head that has the embedding's weight as its own parameter object: the pipeline ties the two, the model stays as it is."""
    if head.weight is not embedding.weight:
        return head
    apart = nn.Linear(head.in_features, head.out_features, bias=False, device="meta")
    apart.weight = head.weight
    return apart


def layers(model: nn.Module) -> Dict[str, nn.Module]:
    """The layers of a causal language model, in order, by name: "embedding", "block 0" …, "head".

    No weight is copied. Tied embeddings become a tie: the head then has a tensor of its own, which the pipeline keeps equal, and the
    model's embedding is the one to go on with. Raises BadInput for a model of another kind: give its layers as a list by hand then.
    """
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", type(model).__name__)
    if kind in ("llama", "qwen2", "qwen3", "mistral"):
        inner = model.model
        named: Dict[str, nn.Module] = {"embedding": _Embedding(inner.embed_tokens)}
        for index, block in enumerate(inner.layers):
            named[f"block {index}"] = _Block(block, inner.rotary_emb, config)
        named["head"] = _Head(inner.norm, _untied_apart(model.lm_head, inner.embed_tokens))
        return named
    if kind == "gpt2":
        inner = model.transformer
        named = {"embedding": _Gpt2Embedding(inner.wte, inner.wpe, inner.drop)}
        for index, block in enumerate(inner.h):
            named[f"block {index}"] = _Gpt2Block(block, config)
        named["head"] = _Head(inner.ln_f, _untied_apart(model.lm_head, inner.wte))
        return named
    raise BadInput(f"a model of kind {kind!r}; expected llama, qwen2, qwen3, mistral or gpt2; write its layers as a list of modules")


def loss(logits: torch.Tensor, labels: torch.Tensor) -> Tuple[torch.Tensor, int]:
    """Cross entropy of the next token, summed, and how many there are.

    logits [samples, length, vocabulary]; labels [samples, length], the tokens themselves, of which -100 is left out.
    """
    ahead = labels[:, 1:]
    total = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ahead.flatten(), reduction="sum", ignore_index=-100)
    return total, int((ahead != -100).sum())
