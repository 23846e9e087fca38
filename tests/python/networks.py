"""Networks of the tests: small, in float32, the same weights each time."""

import torch
import torch.nn.functional as F
from torch import nn

VOCABULARY, LENGTH, WIDTH = 32, 12, 16


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Embedding(LENGTH, WIDTH)

    def forward(self, tokens):
        return self.token(tokens) + self.position(torch.arange(tokens.shape[1]))


class Block(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        samples, length, width = x.shape
        q, k, v = self.mix(self.norm1(x)).view(samples, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + self.dropout(self.out(attended))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.linear = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, x):
        return self.linear(self.norm(x))


def gpt(blocks=6, dropout=0.0, tied=False):
    torch.manual_seed(0)
    layers = [Embedding(), *(Block(dropout) for _ in range(blocks)), Head()]
    if tied:
        layers[-1].linear.weight = layers[0].token.weight
    return layers


def sum_and_weight(outputs, targets):
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="sum"), targets.numel()


def mean(outputs, targets):
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def minibatch(samples=16, seed=1):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY, (samples, LENGTH + 1), generator=generator)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def plain_steps(layers, make_optimizer, steps=3, loss=mean, **minibatches):
    """The losses of a plain loop, and its weights."""
    model = nn.Sequential(*layers)
    optimizer = make_optimizer(list(model.parameters()))
    losses = []
    for step in range(steps):
        x, y = minibatch(seed=step, **minibatches)
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses, model.state_dict()
