"""What a run leaves behind, and the other commands on it."""

import json
import math
import os
import random
import struct
import unittest

import penstock_process as p


def write_idx(path, dimensions, content):
    path.write_bytes(struct.pack(">I", 0x00000800 + len(dimensions)) + struct.pack(f">{len(dimensions)}I", *dimensions)
                     + bytes(content))


class Run(p.Case):
    def test_metrics_timeline_and_settings(self):
        out = self.must_train(self.folder / "run")
        lines = p.metrics(out)
        self.assertEqual([line["step"] for line in lines], list(range(1, 13)))
        for line in lines:
            for name in ("loss", "step_ms", "tokens_per_s", "utilisation", "learning_rate", "grad_norm"):
                self.assertIsInstance(line[name], float, name)
            self.assertGreater(line["utilisation"], 0)
            self.assertLessEqual(line["utilisation"], 1)
        self.assertEqual([line["step"] for line in lines if "held_out_loss" in line], [5, 10])
        self.assertLess(lines[-1]["loss"], lines[0]["loss"])
        trace = json.loads((out / "timeline.json").read_text())
        names = {event["name"] for event in trace["traceEvents"]}
        self.assertTrue({"0F0", "0B3", "1F0", "1B3", "0SEND_F0", "1RECV_F0"} <= names, names)
        # The kept settings make the same run again.
        code, _, err = p.run("train", "--config", out / "config.toml", "--out", self.folder / "again")
        self.assertEqual(code, 0, err)
        self.assertEqual(p.losses(self.folder / "again"), p.losses(out))
        self.assertEqual((self.folder / "again" / "config.toml").read_text(), (out / "config.toml").read_text())

    def test_selected_recomputation_is_the_same_for_every_cut_and_changes_no_number(self):
        none = p.losses(self.must_train(self.folder / "none", dropout=0))
        for stages in (1, 3):
            out = self.folder / f"selected-{stages}"
            code, told, err = self.train(out, dropout=0, recompute="selected", stages=stages)
            self.assertEqual(code, 0, err)
            self.assertIn("layers that are run again: 1,3\n", told)
            self.assertEqual(p.losses(out), none)

    def test_flags_win_over_the_file(self):
        config = self.folder / "run.toml"
        config.write_text("\n".join(
            f"{name} = {json.dumps(value)}" for name, value in {**p.SMALL, "data": [str(self.text)]}.items()))
        code, told, err = p.run("train", "--config", config, "--out", self.folder / "run", "--steps", 3)
        self.assertEqual(code, 0, err)
        self.assertEqual(len(p.metrics(self.folder / "run")), 3)
        self.assertIn("bigram", told)

    def test_keeps_as_many_checkpoints_as_asked(self):
        out = self.must_train(self.folder / "run", keep=2)
        self.assertEqual(sorted(folder.name for folder in (out / "checkpoints").iterdir()),
                         ["step-00000010", "step-00000012"])

    def test_a_checkpoint_written_behind_the_next_steps_is_of_its_own_step(self):
        behind = self.must_train(self.folder / "behind", checkpoint_every=1, keep=20)
        code, told, err = self.train(self.folder / "between", checkpoint_every=1, keep=20, wait_for_checkpoints=True)
        self.assertEqual(code, 0, err)
        self.assertIn("12 checkpoints: training waited ", told)
        for step in range(1, 13):
            self.assertEqual(p.tensors(behind, step), p.tensors(self.folder / "between", step), step)

    def test_python_opens_the_files(self):
        try:
            import safetensors.numpy
        except ImportError:
            self.skipTest("the safetensors package is not installed")
        out = self.must_train(self.folder / "run", layers=3)
        first = safetensors.numpy.load_file(out / "checkpoints" / "step-00000012" / "stage-000.safetensors")
        self.assertEqual(first["layers.1.attention.qkv.weight"].shape, (48, 16))
        self.assertEqual(first["optimizer.first_moment.layers.1.attention.qkv.weight"].shape, (48, 16))

    def test_eval_and_sample(self):
        out = self.must_train(self.folder / "run")
        code, told, err = p.run("eval", out, "--data", self.text)
        self.assertEqual(code, 0, err)
        self.assertRegex(told, r"^loss \d+\.\d+ nats .* after step 12\nperplexity \d+\.\d+\n\d+\.\d+ bits a byte\n$")
        first = p.run("sample", out, "--prompt", "pipe", "--bytes", 30, "--seed", 3)
        self.assertEqual(first[0], 0, first[2])
        self.assertTrue(first[1].startswith("pipe"))
        self.assertEqual(first, p.run("sample", out, "--prompt", "pipe", "--bytes", 30, "--seed", 3))

    def test_the_same_numbers_on_other_cuts(self):
        expected = p.losses(self.must_train(self.folder / "one", stages=1))
        for number, change in enumerate([{"cut": "parameters", "stages": 3}, {"cut": "1,4", "stages": 3},
                                         {"schedule": "gpipe", "stages": 4, "devices": "cpu,cpu"}]):
            self.assertEqual(p.losses(self.must_train(self.folder / f"cut-{number}", **change)), expected)

    def test_the_same_numbers_with_any_steps_in_flight(self):
        out = self.must_train(self.folder / "two", clip=0.01, post_validation=True)
        expected = p.losses(out)
        for steps in (1, 3):
            other = self.must_train(self.folder / str(steps), clip=0.01, post_validation=True, steps_in_flight=steps)
            self.assertEqual(p.losses(other), expected)
            self.assertEqual(p.tensors(other, 12), p.tensors(out, 12))
            self.assertIn(f"steps-in-flight = {steps}", (other / "config.toml").read_text())

    def test_a_run_follows_a_plan_and_says_how_it_was(self):
        sizes = [{"samples": samples, "forward_ms": 0.1 * samples, "input_backward_ms": 0.1 * samples,
                  "weight_backward_ms": 0.1 * samples, "activation_bytes": 1000 * samples, "boundary_bytes": 100}
                 for samples in (1, 6)]
        layers = [{"name": "first", "sizes": sizes}] + [{"name": f"layer {number}", "like": "first"} for number in range(5)]
        cost, plan = self.folder / "cost.json", self.folder / "plan.toml"
        cost.write_text(json.dumps({"model": {"name": "gpt"}, "layers": layers}))
        code, _, err = p.run("plan", "--cost", cost, "--ranks", 3, "--batch", 6, "--schedule", "1f1b", "--microbatches", 3,
                             "-o", plan)
        self.assertEqual(code, 0, err)
        settings = {**p.SMALL, "data": self.text, "out": self.folder / "out", "plan": plan, "steps": 3}
        for chosen in ("stages", "microbatches", "batch"):
            settings.pop(chosen)
        code, told, err = p.run("train", *p.flags(settings))
        self.assertEqual(code, 0, err)
        self.assertRegex(told, r"a step +\S+ ms planned, \S+ \S+ measured \([+-]")
        self.assertRegex(told, r"rank 2 .* planned")
        for line in p.metrics(self.folder / "out"):
            self.assertGreater(line["planned_step_ms"], 0)
        # Flags win, and then nothing was planned.
        code, told, err = p.run("train", *p.flags({**settings, "out": self.folder / "other", "microbatches": 2}))
        self.assertEqual(code, 0, err)
        self.assertIn("does not follow", told)
        self.assertNotIn("planned_step_ms", p.metrics(self.folder / "other")[0])

    def test_a_schedule_from_a_file(self):
        schedule = self.folder / "own.csv"
        schedule.write_text("0F0,0F1,0F2,0F3,0B0,0B1,0B2,0B3\n1F0,1B0,1F1,1B1,1F2,1B2,1F3,1B3\n")
        expected = p.losses(self.must_train(self.folder / "one", stages=1))
        self.assertEqual(p.losses(self.must_train(self.folder / "own", schedule=schedule)), expected)

    def test_token_files_and_images(self):
        tokens = self.folder / "tokens.bin"
        tokens.write_bytes(struct.pack("<3000H", *[step * step % 300 for step in range(3000)]))
        self.must_train(self.folder / "tokens", data=tokens, tied_head=True)
        draw = random.Random(1)
        images, labels = self.folder / "images-idx3-ubyte", self.folder / "labels-idx1-ubyte"
        write_idx(images, (60, 8, 8), [draw.randrange(256) for _ in range(60 * 64)])
        write_idx(labels, (60,), [draw.randrange(4) for _ in range(60)])
        for model in ("mlp", "convnet"):
            out = self.must_train(self.folder / model, data=[images, labels], model=model)
            self.assertEqual(len(p.metrics(out)), 12)

    def test_a_mixture_goes_on_to_the_same_bits(self):
        other = self.folder / "other.txt"
        other.write_text("".join(f"{number} " for number in range(3000)))
        whole, parted, cut = (self.folder / name for name in ("whole", "parted", "cut"))
        data = [f"{self.text}:0.7", f"{other}:0.3"]
        steady = {"data": data, "final_learning_rate": 1}
        code, told, err = self.train(whole, **steady, steps=8)
        self.assertEqual(code, 0, err)
        self.assertIn("the data is a mixture:", told)
        self.assertRegex(told, r"text\.txt 70\.0 % \(.* times through its tokens\), .*other\.txt 30\.0 %")
        self.must_train(parted, **steady, steps=5)
        code, _, err = p.run("train", "--resume", "--out", parted, "--steps", 8)
        self.assertEqual(code, 0, err)
        self.must_train(cut, **steady, steps=8, stages=4, schedule="zb-v")
        for run in (parted, cut):
            self.assertEqual([line["loss"] for line in p.metrics(run)], [line["loss"] for line in p.metrics(whole)])
        self.assertEqual(p.tensors(parted, 8), p.tensors(whole, 8))
        weighted = self.must_train(self.folder / "weighted", data=[f"{self.text}:0.2", f"{other}:0.8"], steps=2)
        self.assertNotEqual(p.metrics(weighted)[0]["loss"], p.metrics(whole)[0]["loss"])
        for data in ([f"{self.text}:0.7", other], [f"{self.text}:0", f"{other}:1"]):
            code, told, err = self.train(self.folder / "refused", data=data)
            self.assertEqual((code, told, len(err.splitlines())), (2, "", 1), err)
            self.assertFalse((self.folder / "refused").exists())

    def test_sources_with_weights_are_evaluated_each_and_together(self):
        other = self.folder / "other.txt"
        other.write_text("".join(f"{number} " for number in range(1000)))
        out = self.must_train(self.folder / "run", steps=2)

        def evaluated(*data):
            code, told, err = p.run("eval", out, "--data", *data, "--json")
            self.assertEqual(code, 0, err)
            return json.loads(told)

        alone = {path: evaluated(path) for path in (self.text, other)}
        both = evaluated(f"{self.text}:0.6", f"{other}:0.2")
        expected = [{"path": str(path), "share": share, **result}
                    for (path, result), share in zip(alone.items(), (0.75, 0.25))]
        for source in expected:
            del source["step"]
        self.assertEqual(both["sources"], expected)
        loss = sum(source["share"] * source["loss_nats"] for source in expected)
        self.assertAlmostEqual(both["loss_nats"], loss)
        self.assertAlmostEqual(both["perplexity"], math.exp(loss), delta=1e-9 * math.exp(loss))
        self.assertAlmostEqual(both["bits_per_byte"], loss / math.log(2))
        self.assertEqual((both["samples"], both["step"]), (sum(source["samples"] for source in expected), 2))
        few = evaluated(f"{self.text}:0.6", f"{other}:0.2", "--samples", 5)
        self.assertEqual([source["samples"] for source in few["sources"]], [5, 5])
        code, told, err = p.run("eval", out, "--data", f"{self.text}:0.6", f"{other}:0.2")
        self.assertEqual(code, 0, err)
        self.assertIn("by the weights of the sources", told)
        self.assertRegex(told, rf"(?m)^{other} +25\.0 % +{expected[1]['samples']} +{expected[1]['loss_nats']:.4f} ")
        for words, arguments in ((["a weight"], [f"{self.text}:0.7", other]),
                                 (["nowhere"], [f"{self.text}:1", "nowhere:1"]),
                                 (["field", "gpt"], [self.text, "--field", "body"])):
            code, told, err = p.run("eval", out, "--data", *arguments)
            self.assertEqual((code, told, len(err.splitlines())), (2, "", 1), err)
            for word in words:
                self.assertIn(word, err)


class Limits(p.Case):
    def test_too_few_descriptors(self):
        settings = p.flags({**p.SMALL, "layers": 8, "stages": 8, "processes": 8, "data": self.text,
                            "out": self.folder / "out"})
        code, _, err = p.run("train", *settings, before=("prlimit", "--nofile=30:30"))
        self.assertEqual(code, 1, err)
        self.assertRegex(err, r"^penstock: .*limit of 30 open files; expected at least \d+; raise the limit")
        self.assertEqual(len(err.splitlines()), 1, err)
        self.assertFalse((self.folder / "out").exists())

    def test_too_small_a_limit_of_a_file_s_size(self):
        settings = p.flags({**p.SMALL, "data": self.text, "out": self.folder / "out"})
        code, _, err = p.run("train", *settings, before=("prlimit", "--fsize=20000:20000"))
        self.assertEqual(code, 1, err)
        self.assertRegex(err, "penstock: cannot write .*: File too large")

    @unittest.skipUnless(os.geteuid() == 0, "only root can be somebody else, whom the limit holds")
    def test_too_few_threads(self):
        self.folder.chmod(0o777)
        self.text.chmod(0o644)
        # A user of its own, so that nobody else's processes count.
        before = ("setpriv", "--reuid=54321", "--clear-groups", "prlimit", "--nproc=4:4")
        settings = p.flags({**p.SMALL, "layers": 8, "stages": 8, "data": self.text, "out": self.folder / "out"})
        code, _, err = p.run("train", *settings, before=before)
        self.assertEqual(code, 1, err)
        self.assertIn("cannot start a thread: ", err)
        self.assertIn("ulimit -u", err)
        self.assertEqual(len(err.splitlines()), 1, err)


if __name__ == "__main__":
    unittest.main()
