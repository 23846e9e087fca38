"""Python layers on the engine: the same bits under every cut and schedule, and the numbers of plain PyTorch."""

import unittest

import networks
import penstock as ps
import torch
from networks import gpt, mean, minibatch, plain_steps, sum_and_weight
from torch import nn

torch.set_num_threads(1)

LAYOUTS = [
    ("1f1b", 1, 4),
    ("gpipe", 2, 4),
    ("1f1b", 2, 4),
    ("1f1b", 3, 4),
    ("1f1b", 4, 4),
    ("zb-h1", 2, 4),
    ("zb-v", 2, 4),
    ("interleaved-1f1b", 2, 4),
    ("v-half", 2, 4),
]


def train(layers, schedule="1f1b", ranks=1, microbatches=4, loss=sum_and_weight, steps=3, **settings):
    """The losses of some steps, and the weights behind them."""
    settings.setdefault("optimizer", ps.SGD(lr=0.1, momentum=0.9))
    with ps.Pipeline(layers, loss, schedule=schedule, ranks=ranks, microbatches=microbatches, **settings) as pipe:
        losses = [pipe.step(*minibatch(seed=step)).loss for step in range(steps)]
        return losses, pipe.state_dict()


class Bits(unittest.TestCase):
    def assert_same(self, a, b, what):
        self.assertEqual(a[0], b[0], what)
        self.assertEqual(a[1].keys(), b[1].keys(), what)
        for name in a[1]:
            self.assertTrue(torch.equal(a[1][name], b[1][name]), f"{what}: {name}")

    def assert_all_same(self, make, layouts=tuple(LAYOUTS), **settings):
        first = train(make(), *layouts[0], **settings)
        for layout in layouts[1:]:
            self.assert_same(first, train(make(), *layout, **settings), f"{layout}")
        return first

    def test_any_cut_and_schedule(self):
        self.assert_all_same(gpt)

    def test_adamw_with_clipping(self):
        self.assert_all_same(gpt, optimizer=ps.AdamW(lr=1e-2), clip=0.5)

    def test_an_optimizer_of_torch_on_each_rank(self):
        self.assert_all_same(
            gpt,
            optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
            scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5),
            clip=0.5,
        )

    def test_dropout(self):
        with_dropout = self.assert_all_same(lambda: gpt(dropout=0.5), seed=3)
        self.assertNotEqual(with_dropout[0], train(gpt(dropout=0.5), seed=4)[0])
        self.assertNotEqual(with_dropout[0], train(gpt())[0])

    def test_a_tie_of_one_object(self):
        tied = self.assert_all_same(lambda: gpt(tied=True))
        self.assertTrue(torch.equal(tied[1]["0.token.weight"], tied[1]["7.linear.weight"]))
        losses, state = plain_steps(gpt(tied=True), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
        for ours, plain in zip(tied[0], losses):
            self.assertAlmostEqual(ours, plain, delta=1e-6)

    def test_a_tie_by_name(self):
        named = self.assert_all_same(gpt, layouts=LAYOUTS[:6], ties=[("0.token.weight", "7.linear.weight")])
        self.assertTrue(torch.equal(named[1]["0.token.weight"], named[1]["7.linear.weight"]))

    def test_two_holders_of_a_stage_start_equal_and_stay_so(self):
        # Their gradients are added in another order than one holder's, so that the last bits may differ.
        one, two = train(gpt()), train(gpt(), "dualpipe", 2)
        self.assert_same(two, train(gpt(), "dualpipe", 2), "dualpipe")
        for name, tensor in one[1].items():
            self.assertLess((tensor - two[1][name]).abs().max().item(), 1e-6, name)

    def test_recomputation(self):
        self.assert_same(train(gpt(dropout=0.1)), train(gpt(dropout=0.1), "1f1b", 2, recompute=True), "recomputed")

    def test_factories_make_the_same_layers_on_any_rank(self):
        def factories():
            return [networks.Embedding, *[networks.Block] * 4, networks.Head]

        first = self.assert_all_same(factories, seed=5)
        self.assertNotEqual(first[0], train(factories(), seed=6)[0])

    def test_a_factory_is_called_once_on_the_rank_that_owns_it(self):
        import threading

        called = []

        def factory(layer):
            def make():
                called.append((layer, threading.get_ident()))
                return nn.Linear(4, 4)

            return make

        pipe = ps.Pipeline([factory(layer) for layer in range(4)], lambda o, t: (o - t).square().mean(), ranks=2, microbatches=2)
        self.assertEqual(sorted(layer for layer, _ in called), [0, 1, 2, 3])
        threads = dict(called)
        self.assertEqual(threads[0], threads[1])
        self.assertNotEqual(threads[0], threads[2])
        self.assertNotIn(threading.get_ident(), threads.values())
        pipe.close()


class Numbers(unittest.TestCase):
    def assert_close(self, ours, plain):
        for a, b in zip(ours[0], plain[0]):
            self.assertAlmostEqual(a, b, delta=1e-6)
        for name, tensor in plain[1].items():
            self.assertLess((ours[1][name] - tensor).abs().max().item(), 1e-6, name)

    def test_they_are_plain_pytorchs(self):
        plain = plain_steps(gpt(), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
        self.assert_close(train(gpt(), "1f1b", 2), plain)
        self.assert_close(train(gpt(), "zb-v", 2, loss=mean), plain)

    def test_with_an_optimizer_of_torch_and_its_learning_rates(self):
        def make(parameters):
            return torch.optim.SGD(parameters, lr=0.2, momentum=0.9, nesterov=True)

        plain = plain_steps(gpt(), make)
        self.assert_close(train(gpt(), "1f1b", 4, optimizer=make), plain)
        halved = train(gpt(), "1f1b", 2, optimizer=make, scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5))
        by_function = train(gpt(), "1f1b", 2, optimizer=ps.SGD(lr=lambda step: 0.2 * 0.5**step, momentum=0.9))
        self.assertNotEqual(halved[0][2], train(gpt(), "1f1b", 2, optimizer=make)[0][2])
        self.assertEqual(by_function[0][0], halved[0][0])

    def test_a_mean_loss_is_weighted_by_its_samples(self):
        with ps.Pipeline(gpt(), mean, ranks=2, microbatches=3) as pipe:
            self.assertIn("not known", pipe.loss_weight)
            result = pipe.step(*minibatch(16))
            self.assertIn("inferred", pipe.loss_weight)
            self.assertEqual([weight for _, weight in result.losses], [6, 5, 5])
            self.assertEqual(result.weight, 16)
        with ps.Pipeline(gpt(), sum_and_weight, ranks=2, microbatches=3) as pipe:
            self.assertAlmostEqual(pipe.step(*minibatch(16)).loss, result.loss, delta=1e-6)
            self.assertIn("returned", pipe.loss_weight)

    def test_evaluation_and_outputs(self):
        x, y = minibatch(10)
        layers = gpt(dropout=0.5)
        model = nn.Sequential(*layers).eval()
        expected = model(x).detach()
        model.train()
        with ps.Pipeline(layers, sum_and_weight, ranks=2, microbatches=4, optimizer=ps.SGD(lr=0.0)) as pipe:
            evaluation = pipe.evaluate(x, y)
            self.assertAlmostEqual(evaluation.loss, mean(expected, y).item(), delta=1e-6)
            self.assertEqual(evaluation.weight, y.numel())
            self.assertTrue(torch.allclose(pipe(x), expected, atol=1e-6))
            self.assertTrue(torch.equal(pipe(x), pipe(x)))
            result = pipe.step(x, y, outputs=True)
            self.assertEqual(result.outputs.shape, expected.shape)
            self.assertFalse(torch.allclose(result.outputs, expected, atol=1e-3))  # dropout
            self.assertIsNone(pipe.step(x, y).outputs)

    def test_what_is_frozen_stays_frozen(self):
        layers = [nn.Linear(4, 4), nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 4)), nn.Linear(4, 4)]
        layers[1][0].eval()
        layers[0].weight.requires_grad_(False)
        before = layers[0].weight.clone()
        x = torch.ones(4, 4)
        with ps.Pipeline(layers, lambda o, t: (o - t).square().mean(), ranks=2, microbatches=2, optimizer=ps.SGD(lr=0.0)) as pipe:
            trained = pipe.step(x, x).loss
            self.assertEqual(pipe.evaluate(x, x).loss, trained)
            self.assertEqual(pipe.step(x, x).loss, trained)
            self.assertFalse(layers[1][0].training)
            self.assertTrue(layers[1].training)
        self.assertTrue(torch.equal(layers[0].weight, before))


    def test_stages_that_are_wholly_frozen_have_the_bits_of_one(self):
        def layers():
            torch.manual_seed(0)
            made = [nn.Linear(4, 4) for _ in range(6)]
            for layer in made[:4]:
                layer.requires_grad_(False)
            return made

        x, found = torch.ones(8, 4), []
        for schedule, ranks in [("1f1b", 1), ("1f1b", 3), ("zb-h1", 3), ("zb-v", 2), ("gpipe", 6)]:
            square = lambda output, target: (output - target).square().mean()  # noqa: E731
            with ps.Pipeline(layers(), square, schedule=schedule, ranks=ranks, microbatches=4, optimizer=ps.AdamW(lr=1e-2)) as pipe:
                found.append([pipe.step(x, x).loss for _ in range(3)])
        self.assertEqual(found, [found[0]] * 5)
        self.assertLess(found[0][2], found[0][0])


class Flow(unittest.TestCase):
    def test_tuples_none_and_skips_cross_boundaries(self):
        class Split(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

            def forward(self, x, mask):
                return self.a(x), None, [self.b(x), mask][0]

        class Join(nn.Module):
            def forward(self, a, nothing, b, original):
                assert nothing is None
                return torch.tanh(a) * b + original

        def layers():
            torch.manual_seed(0)
            return {"split": Split(), "join": Join(), "linear": nn.Linear(4, 4), "norm": nn.LayerNorm(4)}

        x, mask, y = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)), torch.ones(8, 1), torch.zeros(8, 4)
        results = []
        for schedule, ranks in [("1f1b", 1), ("1f1b", 2), ("1f1b", 4), ("zb-v", 2)]:
            loss = lambda output, target: (output - target).square().sum(1).mean()  # noqa: E731
            skips = [("input", "join")]
            with ps.Pipeline(layers(), loss, schedule=schedule, ranks=ranks, microbatches=4, skips=skips, optimizer=ps.SGD(lr=0.1)) as pipe:
                results.append([pipe.step((x, mask), y).loss for _ in range(3)])
        self.assertEqual(results, [results[0]] * 4)
        self.assertLess(results[0][2], results[0][0])

    def test_a_part_of_the_minibatch_may_be_whole(self):
        class Scale(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.Linear(4, 4)

            def forward(self, x, scale):
                assert scale.shape == (1,)
                return self.linear(x) * scale

        x = torch.ones(8, 4)
        with ps.Pipeline([Scale()], lambda o, t: (o - t).square().mean(), microbatches=4, ranks=1) as pipe:
            pipe.step((x, ps.whole(torch.tensor([2.0]))), x)

    def test_python_autograd_functions_take_the_lock(self):
        class Double(torch.autograd.Function):
            @staticmethod
            def forward(context, x):
                return x * 2

            @staticmethod
            def backward(context, gradient):
                return gradient * 2

        class Layer(nn.Linear):
            def forward(self, x):
                return Double.apply(super().forward(x))

        def run(schedule, ranks):
            torch.manual_seed(0)
            layers = [Layer(4, 4) for _ in range(4)]
            with ps.Pipeline(layers, lambda o, t: (o - t).square().mean(), schedule=schedule, ranks=ranks, microbatches=4, optimizer=ps.SGD(lr=1e-3)) as pipe:
                return [pipe.step(torch.ones(8, 4), torch.zeros(8, 4)).loss for _ in range(3)]

        self.assertEqual(run("1f1b", 1), run("zb-v", 2))
        self.assertEqual(run("1f1b", 1), run("1f1b", 4))

    def test_the_timeline_is_the_schedules(self):
        with ps.Pipeline(gpt(), mean, schedule="zb-h1", ranks=2, microbatches=4) as pipe:
            result = pipe.step(*minibatch())
            measured = result.timeline.compute_actions()
            self.assertEqual([[event[0] for event in rank] for rank in measured.events], pipe.schedule.actions)
            self.assertGreater(measured.makespan, 0)
            self.assertGreaterEqual(result.lock_wait_ms, 0)
            self.assertEqual(len(result.peak_bytes), 2)
            self.assertEqual([stage["layers"] for stage in pipe.report()], [4, 4])

    def test_a_plan_says_cut_schedule_and_microbatches(self):
        size = {"forward_ms": 1, "input_backward_ms": 1, "weight_backward_ms": 1}
        costs = {"layers": [{"name": f"{layer}", "sizes": [{"samples": s, **size} for s in (1, 16)]} for layer in range(8)]}
        plan = ps.plan(costs, ranks=2, batch=16, cut=[0, 3], schedules=["1f1b"], microbatches=[4])
        with ps.Pipeline(gpt(), sum_and_weight, plan=plan, optimizer=ps.SGD(lr=0.1, momentum=0.9)) as pipe:
            self.assertEqual((pipe.cut, pipe.schedule), ([0, 3], plan.to_schedule()))
            losses = [pipe.step(*minibatch(seed=step)).loss for step in range(3)]
        self.assertEqual(losses, train(gpt(), "1f1b", 1, 4)[0])
        with self.assertRaisesRegex(ps.BadInput, "8 layers and 7"):
            ps.Pipeline(gpt()[:-1], mean, plan=plan)


if __name__ == "__main__":
    unittest.main()
