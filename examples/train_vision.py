"""Trains a small vision transformer of transformers, whose layers a function of one's own lists: python examples/train_vision.py

ps.hf.layers knows causal language models. Any other model needs what `vision_layers` is: its modules in order, each from what
the one before returned, and beside them what the model's own `forward` does between its modules.
"""

import penstock as ps
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

CLASSES = 4


class Head(nn.Module):
    """The last norm, and the classes from the first token's state."""

    def __init__(self, norm, classifier):
        super().__init__()
        self.norm, self.classifier = norm, classifier

    def forward(self, hidden):
        return self.classifier(self.norm(hidden)[:, 0])


def vision_layers(model):
    """The model's own modules, by name: what is trained are its weights."""
    blocks = {f"block {index}": block for index, block in enumerate(model.vit.layers)}
    return {"embedding": model.vit.embeddings, **blocks, "head": Head(model.vit.layernorm, model.classifier)}


def tiny_model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
    return ViTForImageClassification(ViTConfig(image_size=16, patch_size=4, num_labels=CLASSES, **sizes))


def minibatch(step, samples=32):
    """Noise with one bright quarter, which is the class."""
    generator = torch.Generator().manual_seed(step)
    images = 0.5 * torch.randn(samples, 3, 16, 16, generator=generator)
    classes = torch.randint(CLASSES, (samples,), generator=generator)
    for image, quarter in zip(images, classes.tolist()):
        row, column = 8 * (quarter // 2), 8 * (quarter % 2)
        image[:, row : row + 8, column : column + 8] += 2
    return images, classes


def main():
    model = tiny_model()
    loss = nn.functional.cross_entropy
    with ps.Pipeline(vision_layers(model), loss, schedule="zb-v", ranks=2, microbatches=4, optimizer=ps.AdamW(lr=3e-3)) as pipe:
        for step in range(100):
            result = pipe.step(*minibatch(step))
            if step % 25 == 24 and pipe.process == 0:
                print(f"step {step + 1}: loss {result.loss:.4f}")


if __name__ == "__main__":
    main()
