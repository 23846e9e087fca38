"""Audits and profiles of Python's layers."""

import unittest

import networks
import penstock as ps
import torch
from networks import gpt, minibatch, sum_and_weight
from torch import nn

torch.set_num_threads(1)


class Audit(unittest.TestCase):
    def test_a_network_that_holds(self):
        layers = gpt(blocks=2, dropout=0.2, tied=True)
        before = [parameter.clone() for layer in layers for parameter in layer.parameters()]
        report = ps.audit(layers, *minibatch(6), loss=sum_and_weight)
        self.assertTrue(report.holds, str(report))
        self.assertEqual([layer["is_random"] for layer in report.layers], [False, True, True, False])
        self.assertIs(layers[-1].linear.weight, layers[0].token.weight)
        self.assertTrue(all(torch.equal(a, b) for a, b in zip(before, (p for layer in layers for p in layer.parameters()))))

    def test_what_does_not_hold_is_found(self):
        class Leaks(nn.Linear):
            kept = []

            def forward(self, x):
                self.kept.append(x.clone())
                return super().forward(x)

        class Counts(nn.Linear):
            calls = 0

            def forward(self, x):
                self.calls += 1
                return super().forward(x) * self.calls

        report = ps.audit([nn.Linear(4, 4), Leaks(4, 4), Counts(4, 4)], torch.randn(6, 4))
        self.assertFalse(report.holds)
        self.assertGreater(report.layers[1]["leak_bytes"], 0)
        self.assertGreater(report.layers[2]["differences"], 0)
        self.assertEqual(report.layers[0]["leak_bytes"], 0)

    def test_a_layer_that_raises_is_a_part_of_the_report(self):
        class Raises(nn.Module):
            def forward(self, x):
                raise KeyError("no")

        report = ps.audit([nn.Linear(4, 4), Raises()], torch.randn(6, 4))
        self.assertFalse(report.holds)
        self.assertIn("KeyError", str(report))


class Profile(unittest.TestCase):
    def test_it_measures_every_layer_and_a_plan_follows(self):
        layers = gpt(blocks=2)
        costs = ps.profile(layers, *minibatch(2), sizes=[1, 4], loss=sum_and_weight, budget=0.02, model={"name": "test"})
        self.assertEqual(len(costs.layers), 4)
        self.assertEqual(costs.sizes, (1, 4))
        first = costs.to_dict()["layers"][0]
        self.assertEqual(first["parameter_bytes"], sum(4 * parameter.numel() for parameter in layers[0].parameters()))
        plan = ps.plan(costs, ranks=2, batch=8, effort=1)
        with ps.Pipeline(layers, sum_and_weight, plan=plan) as pipe:
            pipe.step(*minibatch(8))
        with self.assertRaisesRegex(ps.BadInput, "another library"):
            ps.profile(layers, *minibatch(2), sizes=[1], optimizer=torch.optim.SGD)

    def test_what_a_backward_raises_is_the_cause(self):
        class Raises(torch.autograd.Function):
            @staticmethod
            def forward(context, x):
                return x * 2

            @staticmethod
            def backward(context, gradient):
                raise KeyError("no")

        class Layer(nn.Linear):
            def forward(self, x):
                return Raises.apply(super().forward(x))

        with self.assertRaisesRegex(ps.RunFailed, "no") as caught:
            ps.profile([Layer(4, 4)], torch.randn(2, 4), sizes=[1], budget=0.01)
        self.assertIsInstance(caught.exception.__cause__, KeyError)

    def test_factories_and_links(self):
        costs = ps.profile([networks.Embedding, networks.Head], minibatch(1)[0], sizes=[1], ranks=2, budget=0.01, optimizer=None)
        self.assertEqual(len(costs.layers), 2)
        self.assertIn("link", costs.to_dict())


if __name__ == "__main__":
    unittest.main()
