"""What goes wrong is one clear exception, and never a crash or a hang."""

import gc
import traceback
import unittest
import weakref

import penstock as ps
import torch
from torch import nn

torch.set_num_threads(1)


def square(output, target):
    return (output - target).square().mean()


def linears(count=4):
    return [nn.Linear(4, 4) for _ in range(count)]


class Returns(nn.Module):
    """A layer that returns what a function of its input returns."""

    def __init__(self, function):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.function = function

    def forward(self, x):
        return self.function(self.linear(x))


X = torch.ones(8, 4)


class Layers(unittest.TestCase):
    def fails_with(self, layer, pattern, error=ps.BadInput, loss=square):
        for ranks in (1, 2):
            pipe = ps.Pipeline([nn.Linear(4, 4), layer(), *linears(2)], loss, ranks=ranks, microbatches=4)
            with self.assertRaisesRegex(error, pattern) as caught:
                pipe.step(X, X)
            with self.assertRaises(ps.Error):
                pipe.step(X, X)
            del pipe
        return caught.exception

    def test_what_a_layer_returns(self):
        self.fails_with(lambda: Returns(lambda x: ["a", "b"]), r"layer 1 \(Returns\) returned a list that holds a str")
        self.fails_with(lambda: Returns(lambda x: {"x": x}), r"layer 1 \(Returns\) returned a dict; expected a tensor, None")
        self.fails_with(lambda: Returns(lambda x: (x for _ in range(2))), "returned a generator")
        self.fails_with(lambda: Returns(lambda x: 3.0), "returned a float")

    def test_an_exception_arrives_with_the_layers_traceback(self):
        def broken(x):
            raise KeyError("the cupboard is bare")

        error = self.fails_with(lambda: Returns(broken), "rank .*microbatch 0.*layer 1: KeyError: 'the cupboard is bare'", ps.RunFailed)
        self.assertIsInstance(error.__cause__, KeyError)
        frames = traceback.extract_tb(error.__cause__.__traceback__)
        self.assertEqual(frames[-1].name, "broken")
        self.assertIn(("forward", __file__), [(frame.name, frame.filename) for frame in frames])

    def test_so_does_one_of_a_backward(self):
        class Breaks(torch.autograd.Function):
            @staticmethod
            def forward(context, x):
                return x * 2

            @staticmethod
            def backward(context, gradient):
                raise KeyError("the cellar is bare")

        def hooked(x):
            x = x * 2
            x.register_hook(broken_hook)
            return x

        def broken_hook(gradient):
            raise KeyError("the cellar is bare")

        for function, name in ((Breaks.apply, "backward"), (hooked, "broken_hook")):
            for settings in ({"schedule": "1f1b"}, {"schedule": "zb-h1"}, {"schedule": "1f1b", "recompute": True}):
                with self.subTest(name=name, **settings):
                    pipe = ps.Pipeline([nn.Linear(4, 4), Returns(function), *linears(2)], square, ranks=2, microbatches=4, **settings)
                    with self.assertRaisesRegex(ps.RunFailed, "rank 0, stage 0, microbatch 0, action 0[BIW]0: .*the cellar is bare") as caught:
                        pipe.step(X, X)
                    cause = caught.exception.__cause__
                    self.assertIsInstance(cause, KeyError)
                    self.assertEqual(traceback.extract_tb(cause.__traceback__)[-1].name, name)
                    # The engine does not keep what the frames of the traceback hold.
                    layer = weakref.ref(pipe.layer(0))
                    pipe.close()
                    del pipe, caught, cause
                    gc.collect()
                    self.assertIsNone(layer())

    def test_too_many_inputs(self):
        self.fails_with(lambda: Returns(lambda x: (x, x)), "TypeError: .*takes 2 positional arguments but 3 were given", ps.RunFailed)

    def test_an_error_of_torch(self):
        self.fails_with(lambda: nn.Linear(5, 4), "shapes cannot be multiplied", ps.RunFailed)

    def test_losses(self):
        layer = lambda: nn.Linear(4, 4)  # noqa: E731
        self.fails_with(layer, "the loss returned a str", loss=lambda o, t: "1")
        self.fails_with(layer, r"tensor of shape \(2, 4\)", loss=lambda o, t: o - t)
        self.fails_with(layer, "the loss is on meta", loss=lambda o, t: (torch.zeros((), device="meta"), 1))
        error = self.fails_with(layer, "the loss: ZeroDivisionError", ps.RunFailed, loss=lambda o, t: 1 / 0)
        self.assertIsInstance(error.__cause__, ZeroDivisionError)

    def test_optimizers(self):
        def pipe(optimizer, **more):
            return ps.Pipeline(linears(), square, ranks=2, microbatches=4, optimizer=optimizer, **more)

        with self.assertRaisesRegex(ps.BadInput, "factory returned a str"):
            pipe(lambda parameters: "adam")
        with self.assertRaisesRegex(ps.BadInput, "other parameters"):
            pipe(lambda parameters: torch.optim.SGD(parameters[1:], lr=0.1))
        with self.assertRaisesRegex(ps.BadInput, "expected ps.AdamW"):
            pipe(torch.optim.SGD(linears()[0].parameters(), lr=0.1))
        with self.assertRaisesRegex(ps.BadInput, "scheduler"):
            pipe(ps.AdamW(), scheduler=lambda o: None)
        with self.assertRaisesRegex(ps.RunFailed, "invalid|Invalid"):
            pipe(lambda parameters: torch.optim.SGD(parameters, lr=-1))
        with self.assertRaisesRegex(ps.BadInput, "beta1"):
            pipe(ps.AdamW(betas=(2, 0.9)))


class BadInput(unittest.TestCase):
    def refused(self, pattern, layers=None, loss=square, **settings):
        with self.assertRaisesRegex(ps.BadInput, pattern):
            ps.Pipeline(linears() if layers is None else layers, loss, **{"ranks": 2, "microbatches": 4, **settings})

    def test_layers(self):
        self.refused("layers is a generator", (nn.Linear(4, 4) for _ in range(4)))
        self.refused("layers is a str", "layers")
        self.refused("layers is empty", [])
        self.refused("layer 1 is a int", [nn.Linear(4, 4), 3])
        same = nn.Linear(4, 4)
        self.refused("layer 2 is the same module as layer 0", [same, nn.Linear(4, 4), same])
        self.refused("named 'a.b'", {"a.b": nn.Linear(4, 4), "c": nn.Linear(4, 4)})
        self.refused("cut into 4 stages of 2 layers|2 layers", linears(2), ranks=4)
        self.refused("layer 1 has a parameter weight without a shape", [nn.Linear(4, 4), nn.LazyLinear(4)])
        shared = nn.Linear(4, 4)
        self.refused("layer 2 has a module of layer 0, with the parameter 0.weight", [nn.Sequential(shared), nn.Linear(4, 4), nn.Sequential(shared)])

    def test_devices(self):
        self.refused(r"layer 1 \(Linear\) has its weight on meta; expected the host, or cpu", [nn.Linear(4, 4), nn.Linear(4, 4, device="meta")])

        self.refused("`devices` holds 'gpu'", devices=["gpu"])
        self.refused("`devices` holds None", devices=[None])
        self.refused("`devices` holds 'meta', of which this torch finds 0", devices="meta")
        self.refused(f"`devices` holds 'cuda:{torch.cuda.device_count()}'", devices=[torch.device("cuda", torch.cuda.device_count())])

    def test_factories(self):
        self.refused("the factory of layer 1 returned a str", [nn.Linear(4, 4), lambda: "layer"])
        with self.assertRaisesRegex(ps.RunFailed, "layer 1: ZeroDivisionError") as caught:
            ps.Pipeline([nn.Linear(4, 4), lambda: 1 / 0], square, ranks=2, microbatches=2)
        self.assertIsInstance(caught.exception.__cause__, ZeroDivisionError)

    def test_names(self):
        self.refused("a tie names layer 'x'", ties=[("x.weight", "1.weight")])
        self.refused("a tie is 'weight'", ties=["weight"])
        self.refused("a skip names layer 9", skips=[(0, 9)])
        self.refused("writes later|earlier layer", skips=[(2, 1)])
        self.refused("`recompute` names layer 7", recompute=[7])
        with self.assertRaisesRegex(TypeError, "microbatch_size"):
            ps.Pipeline(linears(), square, ranks=2, microbatches=2, microbatch_size=3)

    def test_sizes(self):
        self.refused("`ranks` is 3", schedule=ps.schedule("1f1b", ranks=2, microbatches=4), ranks=3)
        self.refused("without `ranks`", ranks=None)
        self.refused("the loss is a int", loss=3)
        self.refused("the plan is a str", plan="1f1b", ranks=None, microbatches=None)
        self.refused("`clip` is -1", clip=-1)
        self.refused("`seed` is -1", seed=-1)
        self.refused("fp8", precision="fp8")
        self.refused('"8"', precision=8)
        with ps.Pipeline(linears(), square, ranks=2, microbatches=4, optimizer=ps.AdamW(lr=float("nan"))) as pipe:
            with self.assertRaisesRegex(ps.BadInput, "the learning rate is nan"):
                pipe.step(X, X)
            self.assertGreater(pipe.step(X, X, lr=0).loss, 0)
        with ps.Pipeline(linears(), square, ranks=2, microbatches=4) as pipe:
            with self.assertRaisesRegex(ps.BadInput, "samples|microbatches"):
                pipe.step(X[:3], X[:3])
            with self.assertRaisesRegex(ps.BadInput, "x holds a list"):
                pipe.step([X, [X]], X)
            self.assertGreater(pipe.step(X, X).loss, 0)  # nothing was begun

    def test_closed_ones(self):
        pipe = ps.Pipeline(linears(), square, ranks=2, microbatches=4)
        self.assertIn("2 ranks", repr(pipe))
        pipe.close()
        pipe.close()
        self.assertEqual(repr(pipe), "Pipeline(closed)")
        with self.assertRaisesRegex(ps.BadInput, "closed"):
            pipe.step(X, X)
        with self.assertRaisesRegex(TypeError, "pickled"):
            import pickle

            pickle.dumps(pipe)


if __name__ == "__main__":
    unittest.main()
