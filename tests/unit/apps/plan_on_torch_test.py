"""A plan travels to PyTorch: layers measured by examples/measure_layers.py, planned and exported by `penstock plan`, and trained in
PyTorch's schedule runtime on two processes to the gradients of one. Usage: plan_on_torch_test.py PATH_OF_plan_tool FOLDER_OF_examples.
Exit code 77: there is no PyTorch 2.13 or later.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile

try:
    import torch
    import torch.distributed as dist
    import torch.distributed.pipelining
except ImportError as error:
    print(f"skipped: no PyTorch to run a plan on ({error})")
    sys.exit(77)

WIDTH = 16
WORDS = 12
BATCH = 16
# Of a network: what the plan is restricted to.
RESTRICTIONS = {
    "plain": [[], ["--schedule", "interleaved-1f1b", "--stages-per-rank", "2"], ["--schedule", "synthesised"],
              ["--schedule", "1f1b", "--cut", "1"], ["--schedule", "zb-v"]],
    "tied": [[], ["--schedule", "zb-v"], ["--schedule", "v-half", "--recompute", "none"]],
}
CASES = [(name, index, restrictions) for name, lists in RESTRICTIONS.items() for index, restrictions in enumerate(lists)]


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.wide = torch.nn.Linear(WIDTH, 2 * WIDTH)
        self.narrow = torch.nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        return x + self.narrow(torch.nn.functional.gelu(self.wide(self.norm(x))))


def network(name):
    """As GPT-2 is: the head has the embedding's weights. Or nothing is tied."""
    torch.manual_seed(3)
    if name == "plain":
        return [layer for _ in range(4) for layer in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh())]
    layers = [torch.nn.Embedding(WORDS, WIDTH), *(Block() for _ in range(4)), torch.nn.Linear(WIDTH, WORDS, bias=False)]
    layers[-1].weight = layers[0].weight
    return layers


def samples_of(name, samples):
    if name == "plain":
        return torch.randn(samples, WIDTH)
    return torch.randint(WORDS, (samples,))


def targets_of(name, samples):
    return torch.randn(samples, WIDTH) if name == "plain" else torch.randint(WORDS, (samples,))


def loss_of(name):
    return torch.nn.functional.mse_loss if name == "plain" else torch.nn.functional.cross_entropy


def separate(layers):
    """Tied parameters as two, as processes have them that load a checkpoint layer by layer."""
    for layer in layers:
        for module in layer.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, torch.nn.Parameter(parameter.detach().clone()))
    return layers


def exported_program(folder):
    """train.py of the export, as a module."""
    description = importlib.util.spec_from_file_location("train", f"{folder}/train.py")
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    return module


def train_one(rank, folder, name):
    torch.manual_seed(99)
    inputs, targets = samples_of(name, BATCH), targets_of(name, BATCH)
    layers = separate(network(name))
    named = [(f"{index} {type(layer).__name__}", layer) for index, layer in enumerate(layers)]
    pipeline = exported_program(folder).Pipeline(folder, named, loss_of(name))
    loss = pipeline.gradients(inputs, targets)
    whole = network(name)
    expected_loss = loss_of(name)(torch.nn.Sequential(*whole)(inputs), targets)
    expected_loss.backward()
    assert (loss is not None) == pipeline.has_last
    if loss is not None:
        torch.testing.assert_close(loss, expected_loss.item(), rtol=1e-5, atol=1e-6)
    for stage in pipeline.plan["stages"]:
        if stage["rank"] != rank:
            continue
        for layer in range(stage["first_layer"], stage["end_layer"]):
            for ours, expected in zip(layers[layer].parameters(), whole[layer].parameters(), strict=True):
                torch.testing.assert_close(ours.grad, expected.grad, msg=lambda text, layer=layer: f"{folder}, layer {layer}: {text}")


def train(rank, scratch):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{scratch}/store", rank=rank, world_size=2)
    for name, index, _ in CASES:
        train_one(rank, f"{scratch}/{name}{index}", name)
    dist.destroy_process_group()


def plan(scratch, name, restrictions, folder):
    return subprocess.run([tool, "plan", "--cost", f"{scratch}/{name}.json", "--ranks", "2", "--batch", str(BATCH),
                           "--model", name, "--export-pytorch", f"{scratch}/{folder}", *restrictions],
                          capture_output=True, text=True, check=False)


def check_ties(scratch):
    """They are found, and a plan that cannot keep them is refused by name."""
    with open(f"{scratch}/tied.json", encoding="utf-8") as file:
        ties = json.load(file)["ties"]
    assert ties == [{"owner": {"layer": 0, "parameter": "weight"}, "copy": {"layer": 5, "parameter": "weight"},
                     "bytes": 4 * WORDS * WIDTH}], ties
    for restrictions in (["--schedule", "1f1b"], ["--schedule", "zb-v,1f1b", "--stages-per-rank", "1"], ["--cut", "3"]):
        refused = plan(scratch, "tied", restrictions, "refused")
        assert refused.returncode == 2, f"{restrictions}: {refused.stdout}"
        assert "weight of layer 0 and weight of layer 5 on one rank" in refused.stderr, refused.stderr
    assert not os.path.exists(f"{scratch}/refused")


if __name__ == "__main__":
    tool, examples = sys.argv[1:3]
    sys.path.insert(0, examples)
    from measure_layers import measure_layers, save

    with tempfile.TemporaryDirectory() as scratch:
        for name in RESTRICTIONS:
            save(f"{scratch}/{name}.json", measure_layers(network(name), lambda samples, name=name: samples_of(name, samples),
                                                          sizes=[1, 4, 8], repeats=5, budget_s=0, model={"name": name}))
        check_ties(scratch)
        for name, index, restrictions in CASES:
            done = plan(scratch, name, restrictions, f"{name}{index}")
            assert done.returncode == 0, f"{name} {restrictions}: {done.stderr}"
        torch.multiprocessing.spawn(train, args=(scratch,), nprocs=2)
        print(f"{len(CASES)} plans trained in PyTorch's runtime to the gradients of one process")
