"""Schedules on torch.distributed.pipelining: on two processes, to the gradients of one."""

import json
import os
import re
import sys
import tempfile
import unittest
from pathlib import Path

import penstock as ps
import torch
import transformers
from torch import nn
from torchrun import torchrun

RANKS, MICROBATCHES = 2, 4


def names():
    return [family["name"] for family in ps.schedules() if not family["bidirectional"] and not family["forward_only"]]


def layers(count):
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(count)]


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 8, generator=generator), torch.randn(8, 8, generator=generator)


def gradients(modules):
    return {f"{index}.{name}": p.grad.flatten().tolist() for index, module in modules for name, p in module.named_parameters()}


def llama():
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, tie_word_embeddings=False))


def tokens():
    return torch.randint(32, (8, 12), generator=torch.Generator().manual_seed(1))


def next_token_loss(logits, labels):
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def llama_plan():
    """A plan for six layers, of which the blocks take longer than the embedding and less long than the head."""
    times = [0.2, 1, 1, 1, 1, 1.5]
    layers = [
        {
            "name": f"layer {index}", "parameter_bytes": 4096, "optimizer_bytes": 8192,
            "sizes": [
                {"samples": samples, "forward_ms": time * samples, "input_backward_ms": time * samples, "weight_backward_ms": time * samples,
                 "activation_bytes": 1000 * samples, "boundary_bytes": 100 * samples}
                for samples in (1, 8)
            ],
        }
        for index, time in enumerate(times)
    ]  # fmt: skip
    return ps.plan({"layers": layers}, ranks=RANKS, batch=8, copies_of_stages=False, equal_microbatches=True, recompute="none", effort=1)


def llama_gradients(model):
    return {name: p.grad.flatten().tolist() for name, p in model.named_parameters() if p.grad is not None}


def run_llama(rank):
    """The gradients of this rank's part of the model."""
    from torch.distributed.pipelining import PipelineStage

    plan, model = llama_plan(), llama()
    layers = list(ps.hf.layers(model).values())
    bounds = [*plan.cut, len(layers)]
    mine = ps.torch.stages_of_rank(plan, rank)
    stages = [PipelineStage(nn.Sequential(*layers[bounds[i] : bounds[i + 1]]), i, len(plan.cut), torch.device("cpu")) for i in mine]
    runtime = ps.torch.schedule(plan, stages, next_token_loss)
    last = {"target": tokens(), "losses": []} if len(plan.cut) - 1 in mine else {}
    runtime.step(*([tokens()] if 0 in mine else []), **last)
    return llama_gradients(model)


def worker(folder):
    """One process of torchrun: every schedule, one after the other."""
    import torch.distributed as dist
    from torch.distributed.pipelining import PipelineStage

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found = {}
    for name in names():
        schedule = ps.schedule(name, ranks=RANKS, microbatches=MICROBATCHES)
        modules = layers(schedule.stages)
        mine = ps.torch.stages_of_rank(schedule, rank)
        stages = [PipelineStage(modules[index], index, schedule.stages, torch.device("cpu")) for index in mine]
        runtime = ps.torch.schedule(schedule, stages, nn.functional.mse_loss)
        x, y = batch()
        runtime.step(*([x] if 0 in mine else []), **({"target": y, "losses": []} if schedule.stages - 1 in mine else {}))
        found[name] = gradients([(index, modules[index]) for index in mine])
    found["a plan for a llama"] = run_llama(rank)
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


class Runtime(unittest.TestCase):
    def test_every_schedule_has_the_gradients_of_one_process(self):
        with tempfile.TemporaryDirectory() as folder:
            ended = torchrun(__file__, folder, processes=RANKS)
            self.assertEqual(ended.returncode, 0, ended.stderr[-3000:])
            of_ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(RANKS)]
        for name in names():
            modules = layers(ps.schedule(name, ranks=RANKS, microbatches=MICROBATCHES).stages)
            x, y = batch()
            nn.functional.mse_loss(nn.Sequential(*modules)(x), y).backward()
            found = {key: value for of_rank in of_ranks for key, value in of_rank[name].items()}
            expected = gradients(list(enumerate(modules)))
            self.assertEqual(found.keys(), expected.keys(), name)
            for key, values in expected.items():
                self.assertTrue(torch.allclose(torch.tensor(found[key]), torch.tensor(values), atol=1e-6), f"{name} {key}")

        model = llama()
        next_token_loss(model(tokens()).logits, tokens()).backward()
        found = {key: value for of_rank in of_ranks for key, value in of_rank["a plan for a llama"].items()}
        expected = llama_gradients(model)
        self.assertEqual(found.keys(), expected.keys())
        for key, values in expected.items():
            self.assertTrue(torch.allclose(torch.tensor(found[key]), torch.tensor(values), atol=1e-6), key)

    def test_torchtitan_finds_its_schedules_names(self):
        from torch.distributed.pipelining.schedules import get_schedule_class

        costs = {"layers": [{"name": f"layer {index}", "sizes": [{"samples": 1, "forward_ms": 1, "input_backward_ms": 1, "weight_backward_ms": 1},
                                                                 {"samples": 8, "forward_ms": 8, "input_backward_ms": 8, "weight_backward_ms": 8}]}
                            for index in range(8)]}  # fmt: skip
        for schedule in ("1f1b", "interleaved-1f1b", "zb-v"):
            plan = ps.plan(costs, ranks=2, batch=8, schedules=[schedule], equal_microbatches=True, effort=1)
            with tempfile.TemporaryDirectory() as folder:
                plan.export_torchtitan(folder)
                name = re.search(r'pipeline_parallel_schedule = "(\w+)"', Path(folder, "torchtitan.toml").read_text())[1]
            self.assertTrue(get_schedule_class(name), schedule)

    def test_what_it_cannot_run_is_refused(self):
        with self.assertRaisesRegex(ps.BadInput, "two ranks"):
            ps.torch.schedule(ps.schedule("dualpipe", ranks=2, microbatches=4), [None])
        with self.assertRaisesRegex(ps.BadInput, "no backward"):
            ps.torch.schedule(ps.schedule("forward-only", ranks=2, microbatches=4), [None])
        with self.assertRaisesRegex(ps.BadInput, "a str; expected a plan"):
            ps.torch.schedule("1f1b", [None])
        self.assertEqual(ps.torch.stages_of_rank(ps.schedule("zb-v", ranks=2, microbatches=4), 0), [0, 3])


if __name__ == "__main__":
    if "RANK" in os.environ and len(sys.argv) == 2:
        worker(sys.argv[1])
    else:
        unittest.main()
