"""Whole Llama and GPT-2 models of transformers, measured by examples/measure_layers.py in two processes, planned and exported by
`penstock plan`, and trained with the one line that the export's README gives. Usage:
transformers_on_torch_test.py PATH_OF_plan_tool FOLDER_OF_examples. Exit code 77: transformers or PyTorch is missing.
"""

import json
import os
import re
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
except ImportError as error:
    print(f"skipped: {error}; script/bootstrap --tests installs it")
    sys.exit(77)

BATCH = 8


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def check_layers(name):
    """One after the other the layers compute what the model does, with either code of the attention, and are named as its modules."""
    described = load_network(f"{examples}/{name}.py")
    model = described.network()
    tokens = described.inputs(2)
    for attention in ("sdpa", "eager"):
        model.set_attn_implementation(attention)
        hidden = tokens
        for module_name, layer in layers_of(model):
            model.get_submodule(module_name)
            hidden = layer(hidden)
        torch.testing.assert_close(hidden, model(tokens).logits, msg=lambda text, attention=attention: f"{name}, {attention}: {text}")


def first_loss(name):
    """Of a training step on the whole model with the batches of train.py."""
    described = load_network(f"{examples}/{name}.py")
    model = described.network()
    torch.manual_seed(0)
    inputs, targets = described.inputs(BATCH), described.targets(BATCH)
    return described.loss(model(inputs).logits, targets).item()


def check_training(name, restrictions, scratch):
    cost, folder = f"{scratch}/{name}.json", f"{scratch}/{name}_{restrictions[-1]}"
    run(tool, "plan", "--cost", cost, "--ranks", "2", "--batch", str(BATCH), "--export-pytorch", folder, *restrictions)
    with open(f"{folder}/README.md", encoding="utf-8") as file:
        line = re.search(r"torchrun (.*) train.py", file.read())
    printed = run(sys.executable, "-m", "torch.distributed.run", "--standalone", *line[1].split(), f"{folder}/train.py", "--steps", "2")
    losses = [float(value) for value in re.findall(r"loss ([0-9.]+)", printed)]
    assert len(losses) == 2, printed
    assert abs(losses[0] - first_loss(name)) < 1e-3, f"{name}: {losses}, expected {first_loss(name)} first"


if __name__ == "__main__":
    tool, examples = sys.argv[1:3]
    sys.path.insert(0, examples)
    from network_layers import layers_of, load_network

    with tempfile.TemporaryDirectory() as scratch:
        for name in ("tiny_llama", "tiny_gpt2"):
            check_layers(name)
            run(sys.executable, f"{examples}/measure_layers.py", f"{scratch}/{name}.json", "--network", f"{examples}/{name}.py",
                "--sizes", "2,4", "--repeats", "2", "--budget", "0")
            with open(f"{scratch}/{name}.json", encoding="utf-8") as file:
                costs = json.load(file)
            assert costs["action_overhead_ms"] > 0, costs["action_overhead_ms"]
            assert costs["measured"]["rounds"] >= 2 and costs["measured"]["spread"] > 0, costs["measured"]
            assert costs["link"]["bandwidth_bytes_per_ms"] != 5_000_000, "a link that nobody measured"
            assert bool(costs["ties"]) == (name == "tiny_gpt2"), costs["ties"]
            check_training(name, ["--schedule", "zb-v"], scratch)
        check_training("tiny_llama", ["--schedule", "interleaved-1f1b"], scratch)
    print(f"Llama and GPT-2 of transformers {transformers.__version__} trained by their plans on two processes")
