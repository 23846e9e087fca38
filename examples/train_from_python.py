"""Trains a small network of torch modules on two ranks.

    pip install . && python examples/train_from_python.py          # threads of one process
    torchrun --nproc-per-node 2 examples/train_from_python.py      # a process each, to the same bits
"""

import penstock as ps
import torch
from torch import nn

torch.manual_seed(0)
layers = [nn.Linear(16, 64), *[nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(4)], nn.Linear(64, 1)]
x = torch.randn(256, 16)
y = x[:, :4].prod(1, keepdim=True)

with ps.Pipeline(layers, nn.functional.mse_loss, schedule="zb-h1", ranks=2, microbatches=8, optimizer=ps.AdamW(lr=3e-3)) as pipe:
    for step in range(200):
        result = pipe.step(x, y)
        if step % 50 == 49 and pipe.process == 0:
            print(f"step {step + 1}: loss {result.loss:.4f}, bubble {result.timeline.bubble:.2f}")
