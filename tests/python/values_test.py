"""Schedules, costs, timelines and plans as Python values, without torch."""

import json
import pickle
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import penstock as ps

COSTS = {
    "model": {"name": "test"},
    "layers": [
        {
            "name": f"block {layer}",
            "parameter_bytes": 1 << 20,
            "optimizer_bytes": 2 << 20,
            "sizes": [
                {
                    "samples": samples,
                    "forward_ms": 1.0 * samples + 0.1 * layer,
                    "input_backward_ms": 1.0 * samples,
                    "weight_backward_ms": 0.9 * samples,
                    "activation_bytes": 100_000 * samples,
                    "boundary_bytes": 10_000 * samples,
                }
                for samples in (1, 16)
            ],
        }
        for layer in range(8)
    ],
}


class Schedules(unittest.TestCase):
    def test_a_schedule_is_a_value(self):
        a = ps.schedule("zb-v", ranks=4, microbatches=8)
        b = ps.schedule("zb-v", ranks=4, microbatches=8)
        self.assertEqual(a, b)
        self.assertEqual(hash(a), hash(b))
        self.assertNotEqual(a, ps.schedule("zb-v", ranks=4, microbatches=9))
        self.assertNotEqual(a, "zb-v")
        self.assertEqual((a.ranks, a.stages, a.microbatches, a.forward_only), (4, 8, 8, False))
        self.assertEqual(a.placement, [[0], [1], [2], [3], [3], [2], [1], [0]])
        self.assertEqual(a.actions[0][0], "0F0")
        self.assertEqual(repr(a), "Schedule('zb-v', 4 ranks, 8 stages, 8 microbatches)")

    def test_pickle_and_csv_give_back_an_equal_one(self):
        for family in ps.schedules():
            schedule = ps.schedule(family["name"], ranks=4, microbatches=8)
            self.assertEqual(pickle.loads(pickle.dumps(schedule)), schedule)
            self.assertEqual(pickle.loads(pickle.dumps(schedule)).name, family["name"])
            self.assertEqual(ps.Schedule.parse(schedule.to_csv()), schedule)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "zb-v.csv"
            schedule.to_csv(path)
            self.assertEqual(ps.Schedule.load(path), schedule)
            self.assertEqual(path.read_text(), schedule.to_csv())

    def test_it_verifies_and_says_where_it_is_wrong(self):
        schedule = ps.schedule("1f1b", ranks=2, microbatches=4)
        self.assertIs(type(schedule.verify()), ps.Schedule)
        broken = ps.Schedule.parse(schedule.to_csv().replace("1F0", "1F1", 1).replace("1F1", "1F0", 2))
        with self.assertRaises(ps.BadInput):
            broken.verify()
        with self.assertRaisesRegex(ps.BadInput, "memory|activations"):
            ps.schedule("gpipe", ranks=2, microbatches=4).verify(memory_cap=3)

    def test_bad_names_and_sizes_are_both_errors_of_values(self):
        with self.assertRaisesRegex(ValueError, "1f1b"):
            ps.schedule("no-such", ranks=2, microbatches=2)
        with self.assertRaises(ps.Error):
            ps.schedule("dualpipe", ranks=3, microbatches=8)
        self.assertTrue(issubclass(ps.BadInput, ValueError) and issubclass(ps.RunFailed, RuntimeError))

    def test_the_simulated_bubble_is_the_papers(self):
        ranks, microbatches = 4, 8
        timeline = ps.schedule("gpipe", ranks=ranks, microbatches=microbatches).simulate()
        # (p - 1) of m + p - 1 slots, each of a forward and a backward.
        self.assertAlmostEqual(timeline.bubble, (ranks - 1) / (microbatches + ranks - 1))
        self.assertEqual(timeline.makespan, 3 * (microbatches + ranks - 1))
        self.assertEqual(timeline.peak_activations, [microbatches] * ranks)
        self.assertEqual(timeline.unit, "units")
        self.assertEqual(pickle.loads(pickle.dumps(timeline)), timeline)

    def test_lowered_schedules_have_sends(self):
        actions = ps.schedule("1f1b", ranks=2, microbatches=1).lower().actions
        self.assertEqual(actions, [["0F0", "0SEND_F0", "0RECV_B0", "0B0"], ["1RECV_F0", "1F0", "1B0", "1SEND_B0"]])

    def test_comparing_puts_the_better_first(self):
        schedule = ps.schedule("zb-v", ranks=4, microbatches=8)
        comparison = schedule.compare("gpipe")
        self.assertEqual(comparison.schedules, ["zb-v", "gpipe"])
        self.assertLess(comparison.bubbles[0], comparison.bubbles[1])
        self.assertEqual(len(json.loads(comparison.to_json())["schedules"]), 2)
        with self.assertRaisesRegex(ps.BadInput, "int"):
            schedule.compare(3)
        for found in (comparison, schedule.compare("1f1b", steps=3), ps.compare(ranks=3, microbatches=6)):
            back = pickle.loads(pickle.dumps(found))
            self.assertEqual(back, found)
            self.assertEqual((str(back), back.to_json(), back.refused), (str(found), found.to_json(), found.refused))
        self.assertNotEqual(comparison, schedule.compare("1f1b"))
        self.assertIn("zb-v", ps.compare(ranks=4, microbatches=8).schedules)
        self.assertIn("chimera", ps.compare(ranks=3, microbatches=6).refused)

    def test_it_draws_itself(self):
        schedule = ps.schedule("1f1b", ranks=2, microbatches=4)
        for drawing in (schedule._repr_svg_(), schedule._repr_html_(), schedule.simulate()._repr_svg_()):
            self.assertTrue(drawing.lstrip().startswith("<svg"))
            self.assertIn("1F1B on 2 ranks", drawing)
        self.assertIn("0F0", str(schedule))
        with tempfile.TemporaryDirectory() as folder:
            for ending in ("svg", "html", "json", "txt"):
                schedule.simulate().save(Path(folder) / f"step.{ending}")
                self.assertGreater((Path(folder) / f"step.{ending}").stat().st_size, 20)
            with self.assertRaises(ps.BadInput):
                schedule.simulate().save(Path(folder) / "step.png")


class Costs(unittest.TestCase):
    def test_a_cost_is_a_value_from_a_dict_or_json(self):
        given = {"stages": [{"forward_ms": 1, "input_backward_ms": 2, "weight_backward_ms": 1}] * 4, "link": {"latency_ms": 0.5}}
        cost = ps.Cost(given)
        self.assertEqual(cost, ps.Cost(json.dumps(given)))
        self.assertEqual(cost, ps.Cost(cost.to_dict()))
        self.assertEqual(cost, pickle.loads(pickle.dumps(cost)))
        self.assertNotEqual(cost, ps.Cost.uniform(4))
        self.assertEqual(cost.stages, 4)
        timeline = ps.schedule("1f1b", ranks=4, microbatches=8).simulate(cost)
        self.assertEqual(timeline, ps.schedule("1f1b", ranks=4, microbatches=8).simulate(given))
        self.assertGreater(timeline.makespan, 4 * (8 + 3))
        self.assertEqual(timeline.unit, "ms")

    def test_what_is_no_cost_is_named(self):
        with self.assertRaisesRegex(ps.BadInput, "forward_ms"):
            ps.Cost({"stages": [{"forward_ms": -1, "input_backward_ms": 1, "weight_backward_ms": 1}]})
        with self.assertRaises(ps.BadInput):
            ps.Cost("{")
        with self.assertRaises(ps.BadInput):
            ps.schedule("1f1b", ranks=2, microbatches=2).simulate(ps.Cost.uniform(3))

    def test_costs_of_layers(self):
        costs = ps.LayerCosts(COSTS)
        self.assertEqual(costs, ps.LayerCosts(costs.to_dict()))
        self.assertEqual(costs, pickle.loads(pickle.dumps(costs)))
        self.assertEqual(costs.layers[3], "block 3")
        self.assertEqual(costs.sizes, (1, 16))
        self.assertEqual(costs.cost_of_cut([0, 4], samples=2).stages, 2)


class Synthesis(unittest.TestCase):
    def test_it_is_never_worse_than_the_published(self):
        cost = ps.Cost({"stages": [{"forward_ms": 1, "input_backward_ms": 1.5, "weight_backward_ms": 0.5 + 0.3 * s} for s in range(4)]})
        found = ps.synthesise(cost, ranks=4, microbatches=6, evaluations=200)
        self.assertEqual(found.schedule, ps.synthesise(cost, ranks=4, microbatches=6, evaluations=200).schedule)
        self.assertLessEqual(found.longest_span, found.generator_span)
        self.assertGreaterEqual(found.longest_span, found.lower_bound)
        found.schedule.verify()
        back = pickle.loads(pickle.dumps(found))
        self.assertEqual(back, found)
        self.assertEqual((repr(back), back.to_json(), back.timeline), (repr(found), found.to_json(), found.timeline))
        self.assertNotEqual(found, ps.synthesise(cost, ranks=4, microbatches=7, evaluations=10))
        self.assertEqual(json.loads(found.to_json())["lower_bound_ms"], found.lower_bound)
        self.assertIn("<svg", found._repr_html_())
        with self.assertRaisesRegex(ps.BadInput, "placement"):
            ps.synthesise(cost, ranks=4, microbatches=6, placement="u")


class Plans(unittest.TestCase):
    def test_a_plan_prints_saves_and_comes_back(self):
        plan = ps.plan(COSTS, ranks=2, batch=16, effort=1)
        self.assertEqual((plan.ranks, plan.batch, plan.layers, plan.cut[0]), (2, 16, 8, 0))
        self.assertEqual(plan, ps.plan(ps.LayerCosts(COSTS), ranks=2, batch=16, effort=1))
        back = pickle.loads(pickle.dumps(plan))
        self.assertEqual(back, plan)
        self.assertEqual((str(back), back.to_json(), back._repr_html_()), (str(plan), plan.to_json(), plan._repr_html_()))
        self.assertEqual(back.alternatives, plan.alternatives)
        self.assertEqual(json.loads(plan.to_json())["plans"][0]["microbatches"], plan.microbatches)
        self.assertIn(plan.schedule, str(plan))
        self.assertIn("[prediction]", plan.to_toml())
        self.assertEqual(plan.to_schedule().ranks, 2)
        self.assertAlmostEqual(plan.timeline().makespan, plan.prediction["pipeline_ms"])
        self.assertTrue(plan.alternatives)
        self.assertGreaterEqual(plan.alternatives[0].prediction["step_ms"], plan.prediction["step_ms"])
        with tempfile.TemporaryDirectory() as folder:
            plan.save(Path(folder) / "plan.toml")
            loaded = ps.Plan.load(Path(folder) / "plan.toml")
            self.assertEqual((loaded.cut, loaded.schedule, loaded.microbatches), (plan.cut, plan.schedule, plan.microbatches))
            with self.assertRaisesRegex(ps.BadInput, "costs"):
                loaded.timeline()

    def test_it_goes_to_other_runtimes(self):
        plan = ps.plan(COSTS, ranks=2, batch=16, schedules=["1f1b", "interleaved-1f1b"], microbatches=[8], recompute="none", effort=1)
        arguments = dict(line.split(" ", 1) if " " in line else (line, "") for line in plan.to_megatron().splitlines())
        layout = re.sub(r"t\*(\d+)", lambda match: "t" * int(match[1]), arguments["--pipeline-model-parallel-layout"])
        self.assertEqual(layout.replace("|", ""), "E" + "t" * 6 + "L")
        self.assertEqual([len(stage) for stage in layout.split("|")], [b - a for a, b in zip(plan.cut, [*plan.cut[1:], 8])])
        with tempfile.TemporaryDirectory() as folder:
            plan.export_torchtitan(Path(folder) / "titan")
            self.assertEqual(ps.Schedule.load(Path(folder) / "titan" / "schedule.csv"), plan.to_schedule())
            self.assertIn('"norm", "output", "lm_head"]', (Path(folder) / "titan" / "torchtitan.toml").read_text())
        with self.assertRaisesRegex(ps.BadInput, "1f1b or interleaved-1f1b"):
            ps.plan(COSTS, ranks=2, batch=16, schedules=["zb-h1"], equal_microbatches=True, effort=1).to_megatron()
        with self.assertRaisesRegex(ps.BadInput, "microbatches of equal size"):
            ps.plan(COSTS, ranks=2, batch=16, schedules=["1f1b"], microbatches=[6], effort=1).to_megatron()

    def test_it_draws_its_sweep(self):
        plan = ps.plan(COSTS, ranks=2, batch=16, schedules=["1f1b", "zb-h1"], effort=1)
        self.assertTrue(plan.sweep_svg().lstrip().startswith("<svg"))
        self.assertIn("<svg", plan._repr_html_())

    def test_the_memory_decides(self):
        with self.assertRaisesRegex(ps.BadInput, "memory|GiB|MiB|KiB"):
            ps.plan(COSTS, ranks=2, batch=16, memory="1MiB")
        with self.assertRaisesRegex(ps.BadInput, "memory"):
            ps.plan(COSTS, ranks=2, batch=16, memory="much")
        self.assertLessEqual(max(ps.plan(COSTS, ranks=2, batch=16, memory=1 << 30).prediction["memory_bytes"]), 1 << 30)


class Package(unittest.TestCase):
    def test_the_stubs_name_what_there_is(self):
        import ast

        stub = ast.parse((Path(ps.__file__).parent / "_core.pyi").read_text())

        def public(names):
            return {name for name in names if not name.startswith("_")}

        def defined(body):
            return {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}

        self.assertEqual(public(defined(stub.body)), public(dir(ps._core)))
        for node in stub.body:
            if isinstance(node, ast.ClassDef):
                self.assertEqual(public(defined(node.body)), public(dir(getattr(ps._core, node.name))), node.name)

    def test_the_stubs_have_the_arguments_that_there_are(self):
        import ast
        import re

        stub = ast.parse((Path(ps.__file__).parent / "_core.pyi").read_text())

        def arguments(node):
            given = node.args
            return [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs) if argument.arg != "self"]

        def arguments_of(function):
            """Of the first line of what pybind11 writes: name(self: Type, path: ..., *, cost: ... = None) -> ..."""
            signature = function.__doc__.splitlines()[0]
            return re.findall(r"[(,] ?(\w+): ", re.sub(r"\[[^()]*?\]", "", re.sub(r"\[[^\[\]]*\]", "", signature)))

        for node in stub.body:
            if isinstance(node, ast.FunctionDef):
                self.assertEqual(arguments(node), arguments_of(getattr(ps._core, node.name)), node.name)
            for method in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and not method.decorator_list:
                    found = arguments_of(getattr(getattr(ps._core, node.name), method.name))
                    self.assertEqual(arguments(method), found[1:], f"{node.name}.{method.name}")

    def test_it_imports_without_torch(self):
        code = (
            "import sys; sys.modules['torch'] = None\n"
            "import penstock as ps\n"
            "assert ps.schedule('zb-v', ranks=2, microbatches=4).simulate().bubble < 0.5\n"
            "try:\n    ps.Pipeline\nexcept ImportError as error:\n    print(error)\n"
        )
        said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        self.assertIn("needs torch" if ps._built_with.TORCH else "without torch", said)
        self.assertEqual(len(said.splitlines()), 1)

    def test_everything_public_is_there_and_says_what_it_is(self):
        for name in ps.__all__:
            if name in ps._OF_THE_ENGINE or name == "__version__":
                continue
            self.assertTrue(getattr(ps, name).__doc__, name)
            if not isinstance(getattr(ps, name), type) or issubclass(getattr(ps, name), Exception):
                continue
            for attribute, member in vars(getattr(ps, name)).items():
                if not attribute.startswith("_") and (callable(member) or isinstance(member, (property, staticmethod))):
                    # Behind the line with the signature, which pybind11 writes.
                    said = (getattr(getattr(ps, name), attribute).__doc__ or "").strip().splitlines()
                    said = [line for line in said if not line.startswith(f"{attribute}(")]
                    self.assertTrue(any(said), f"{name}.{attribute}")
        self.assertIn("Pipeline", dir(ps))
        with self.assertRaises(AttributeError):
            ps.no_such_thing


if __name__ == "__main__":
    unittest.main()
