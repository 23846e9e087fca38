"""Plans from measured layers, and runs that choose for themselves."""

import json
import unittest

import penstock_process as p

NETWORK = {"model": "gpt", "layers": 3, "width": 16, "heads": 2, "context": 16}


class Plan(p.Case):
    def plan(self, *arguments, **changes):
        settings = {**NETWORK, "data": self.text, "cost": self.folder / "cost.json", "ranks": 2, "batch": 8,
                    "effort": 1}
        settings.update({name.replace("_", "-"): value for name, value in changes.items()})
        return p.run("plan", *p.flags(settings), *arguments)

    def must_plan(self, *arguments, **changes):
        code, told, err = self.plan(*arguments, **changes)
        self.assertEqual(code, 0, err)
        return told, err

    def refused(self, expected, *arguments, **changes):
        code, told, err = self.plan(*arguments, **changes)
        self.assertEqual(code, 2, err)
        self.assertEqual(told, "")
        # What was measured before is told, and then one line.
        complaints = [line for line in err.splitlines() if not line.startswith("the layers were measured before")]
        self.assertEqual(len(complaints), 1, err)
        self.assertIn(expected, complaints[0])

    def test_a_run_follows_the_plan_of_its_measured_layers(self):
        file = self.folder / "plan.toml"
        told, err = self.must_plan("-o", file)
        self.assertIn("measuring the layers on 2 ranks at once", err)
        self.assertIn("first layers of the stages: 0,", told)
        costs = json.loads((self.folder / "cost.json").read_text())
        self.assertEqual(costs["model"]["width"], "16")
        self.assertEqual(costs["layers"][2], {"name": "2 block", "like": "1 block"})
        # Nothing has changed: nothing is measured.
        again, err = self.must_plan()
        self.assertIn("measured before", err)
        self.assertEqual(again, told)
        code, told, err = self.train(self.folder / "run", plan=file, **{**NETWORK, "microbatches": None,
                                                                       "stages": None, "batch": None})
        self.assertEqual(code, 0, err)
        self.assertIn("the plan and what was measured", told)
        self.assertIn("planned_step_ms", p.metrics(self.folder / "run")[0])

    def test_a_run_plans_for_itself(self):
        out = self.folder / "run"
        auto = {"stages": None, "ranks": 2, "schedule": "auto", "microbatches": "auto", "cut": "auto",
                "cost": self.folder / "cost.json"}
        code, told, err = self.train(out, **auto)
        self.assertEqual(code, 0, err)
        self.assertIn("planned: ", told)
        self.assertIn("the plan and what was measured", told)
        self.assertTrue((out / "plan.toml").exists())
        # The run goes on with what it has chosen.
        code, told, err = p.run("train", "--resume", "--out", out, "--steps", 14)
        self.assertEqual(code, 0, err)
        self.assertNotIn("planned: ", told)
        # Which is what a run has that is told so.
        self.assertEqual(len(p.metrics(out)), 14)

    def test_other_numbers_of_ranks_are_looked_at(self):
        told, err = self.must_plan()
        self.assertIn("On other numbers of ranks:\n  1 rank of ", told)
        self.assertIn("measuring the layers on 1 rank, in ", err)
        told, _ = self.must_plan("--json", "-o", self.folder / "plan.toml", ranks="auto")
        answer = json.loads(told)
        plans = [answer["plans"][0], *answer.get("on_other_ranks", [])]
        # Where a busy machine's times say nothing about which is the faster, the most ranks are chosen.
        if max(answer.get("spread", 0), *(plan.get("spread", 0) for plan in plans)) < 0.2:
            self.assertEqual(plans[0]["step_ms"], min(plan["step_ms"] for plan in plans))
        else:
            self.assertEqual(plans[0]["ranks"], max(plan["ranks"] for plan in plans))
        self.assertIn(1, [plan["ranks"] for plan in plans])
        threads = plans[0]["threads_per_rank"]
        self.assertIn(f"threads-per-rank = {threads}\n", (self.folder / "plan.toml").read_text())
        code, _, err = p.run("plan", "--cost", self.folder / "cost-ranks-1.json", "--ranks", "auto", "--batch", 8)
        self.assertEqual(code, 2)
        self.assertIn("--ranks auto without --data", err)

    def test_layers_are_measured_again_where_that_is_asked_for(self):
        self.must_plan()
        _, err = self.must_plan()
        self.assertRegex(err, r"the layers were measured before \(.* ago, median known to .* %\): ")
        _, err = self.must_plan("--remeasure")
        self.assertRegex(err, r"measured in .* \([0-9]+ rounds, median known to ")

    def test_tried_plans_have_measured_columns_and_come_in_their_order(self):
        told, _ = self.must_plan("--json", "--sweep", self.folder / "sweep.svg", **{"try": 2, "top": 3})
        plans = json.loads(told)["plans"]
        self.assertEqual(["measured" in plan for plan in plans], [True, True, False])
        self.assertLessEqual(plans[0]["measured"]["step_ms"], plans[1]["measured"]["step_ms"])
        self.assertEqual(len(plans[0]["measured"]["memory_bytes"]), 2)
        told, _ = self.must_plan(**{"try": 1})
        self.assertIn("measured (ms)", told.splitlines()[0])

    def test_bad_input_is_one_line(self):
        self.must_plan()
        self.refused("is of another model, width \"16\"", width=32)
        self.refused("is of another machine, ranks \"2\"", ranks=3)
        self.refused("--ranks is 9; expected 1 to 5, the number of layers", ranks=9)
        self.refused("--ranks is 0", ranks=0)
        self.refused("--batch is 0", batch=0)
        self.refused("no plan fits", memory="40KB")
        self.refused("--memory is \"much\"", memory="much")
        self.refused("--model is \"rnn\"", model="rnn")
        self.refused("no/such", data="no/such")
        self.refused("--try 3 without --data", **{"try": 3, "data": None, "layers": None, "width": None, "heads": None,
                                                  "context": None, "model": None})

    def test_auto_needs_one_process(self):
        code, _, err = self.train(self.folder / "run", stages=None, ranks=2, schedule="auto", processes=2)
        self.assertEqual((code, err.count("\n")), (2, 1), err)
        self.assertIn("--plan", err)
        self.assertFalse((self.folder / "run").exists())

    def test_auto_needs_one_replica(self):
        code, _, err = self.train(self.folder / "run", stages=None, ranks=2, schedule="auto", replicas=2)
        self.assertEqual((code, err.count("\n")), (2, 1), err)
        self.assertIn("auto with --replicas = 2", err)
        self.assertFalse((self.folder / "run").exists())


if __name__ == "__main__":
    unittest.main()
