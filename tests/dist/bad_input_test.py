"""Bad input gets one line that says what was got, what was expected and what to do, exit code 2, and nothing written."""

import os
import shutil
import struct
import subprocess
import unittest

import penstock_process as p


class BadInput(p.Case):
    def refused(self, words, *arguments):
        before = self.listing()
        code, out, err = p.run(*arguments)
        self.assertEqual(code, 2, f"{arguments}: {out}{err}")
        self.assertEqual(len(err.splitlines()), 1, err)
        self.assertTrue(err.startswith("penstock: "), err)
        self.assertIn("expected", err)
        for word in words:
            self.assertIn(str(word), err)
        self.assertEqual(self.listing(), before, "something was written")

    def listing(self):
        return {path: path.read_bytes() if path.is_file() else None for path in self.folder.rglob("*")}

    def refused_training(self, words, **changes):
        settings = {**p.SMALL, "data": self.text, "out": self.folder / "out"}
        settings.update({name.replace("_", "-"): value for name, value in changes.items()})
        self.refused(words, "train", *p.flags(settings))

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def test_settings(self):
        self.refused_training(["7 stages", "6 layers"], stages=7)
        self.refused_training(["7 microbatches", "batch of 6"], microbatches=7)
        self.refused_training(["3 heads", "width 16"], heads=3)
        self.refused_training(["--layers is 0"], layers=0)
        self.refused_training(["--model", "lstm", "convnet"], model="lstm")
        self.refused_training(["--dropout"], dropout=1)
        self.refused_training(["zigzag", "1f1b"], schedule="zigzag")
        self.refused_training(["\"1,x\""], cut="1,x")
        self.refused_training(["cuda:0"], devices="cuda:0,cuda:1")
        self.refused_training(["IDX"], model="mlp")
        self.refused_training(["--steps is 0"], steps=0)
        self.refused_training(["--layers is 100001"], layers=100001)
        self.refused_training(["--threads-per-rank is 100000"], threads_per_rank=100000)
        self.refused_training(["--learning-rate is inf", "finite"], learning_rate="inf")
        self.refused_training(["--weight-decay is nan", "finite"], weight_decay="nan")
        # As large as the type holds: config.toml could not be read again.
        self.refused_training(["--seed"], seed=2**64 - 1)
        # These become the nearest number that fits where nobody looks.
        self.refused_training(["--seed", "-1"], seed=-1)
        self.refused_training(["--batch", "99999999999999999999"], batch=99999999999999999999)
        self.refused_training(["--out"], out=None)
        self.refused_training(["--data"], data=None)

    def test_the_command_line(self):
        self.refused(["--widht"], "train", "--widht", 3)
        self.refused(["many"], "train", "--layers", "many")
        self.refused(["nothing", "train", "schedule"])
        self.refused(["'trian'", "train"], "trian")
        self.refused(["nothing", "penstock schedule", "verify"], "schedule")
        self.refused(["--widht", "penstock schedule show"], "schedule", "show", "1f1b", "--widht", 3)
        self.refused(["run"], "eval", "--data", self.text)
        self.refused(["holds no run"], "eval", self.folder, "--data", self.text)
        self.refused(["holds no run"], "sample", self.folder / "none", "--prompt", "x")
        self.refused(["0 stages"], "bubbles", "--stages", 0)
        self.refused(["0 microbatches"], "bubbles", "--microbatches", "0")
        self.refused(["holds no run", "--data"], "train", "--resume", "--out", self.folder / "none")
        self.refused(["holds no run"], "eval", "x" * 300, "--data", self.text)
        self.refused(["File name too long"], "train", "--data", self.text, "--out", self.folder / ("x" * 300))
        drawn = "schedule", "show", "1f1b", "--ranks", 2, "--microbatches", 2, "--output"
        self.refused(["is a folder"], *drawn, self.folder)
        self.refused(["no folder"], *drawn, self.folder / "none" / "drawn.svg")
        self.refused(["25000000"], "schedule", "show", "1f1b", "--ranks", 30000, "--microbatches", 30000)

    def test_sample_and_eval(self):
        out = self.must_train(self.folder / "out")
        self.refused(["--bytes is 0"], "sample", out, "--prompt", "x", "--bytes", 0)
        self.refused(["--temperature is nan"], "sample", out, "--prompt", "x", "--temperature", "nan")
        self.refused(["--prompt"], "sample", out, "--prompt", "")
        self.refused(["--samples is -1"], "eval", out, "--data", self.text, "--samples", -1)
        self.refused(["none.txt"], "eval", out, "--data", self.folder / "none.txt")
        # So small that dividing by it leaves infinities.
        code, _, err = p.run("sample", out, "--prompt", "x", "--bytes", 2, "--temperature", 1e-300)
        self.assertEqual(code, 0, err)

    def test_what_cannot_be_printed_is_a_failed_run(self):
        with open("/dev/full", "w") as full:
            for size in 2, 60:
                done = subprocess.run([p.PENSTOCK, "schedule", "show", "1f1b", "--ranks", str(size), "--microbatches",
                                       str(size)], stdout=full, stderr=subprocess.PIPE, text=True)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("expected", done.stderr)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_data(self):
        self.refused_training(["none.txt"], data=self.folder / "none.txt")
        self.refused_training(["empty"], data=self.file("empty.txt", ""))
        self.refused_training(["16"], data=self.file("short.txt", "too short"))
        (self.folder / "hollow").mkdir()
        self.refused_training(["hollow"], data=self.folder / "hollow")
        self.refused_training(["odd.bin"], data=self.file("odd.bin", b"x" * 1001))
        images = self.file("images", struct.pack(">IIII", 0x803, 10, 8, 8) + b"x" * 639)
        labels = self.file("labels", struct.pack(">II", 0x801, 10) + b"x" * 10)
        self.refused_training(["images", "656", "655"], data=[images, labels], model="mlp")

    def test_toml(self):
        for content, words in [("widht = 3", ["line 1", "widht", "\"width\""]),
                               ("\nlayers = \"four\"", ["line 2", "layers"]),
                               ("layers = ", ["line 1"]),
                               ("[train]\nlayers = 3", ["train"])]:
            self.refused_training(words, config=self.file("run.toml", content))
        self.refused_training(["none.toml"], config=self.folder / "none.toml")

    def test_files_without_end_or_depth(self):
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        deep = self.file("deep.toml", ".".join("a" * 50000) + " = 1")
        long = self.file("long.toml", "# a comment\n" * 400000)
        brackets = self.file("cost.json", "[" * 2000000)
        for file, words in (("/dev/zero", ["no regular file"]), (pipe, ["no regular file"]),
                            (deep, ["line 1", "at most 16 parts"]), (long, ["is longer than"])):
            self.refused_training([file, *words], config=file)
        for file, words in (("/dev/zero", ["no regular file"]), (deep, ["at most 16 parts"])):
            self.refused_training([file, *words], plan=file)
        drawn = "schedule", "compare", "--ranks", 2, "--microbatches", 2, "--cost"
        self.refused(["at most 16 levels"], *drawn, brackets)
        self.refused(["no regular file"], *drawn, pipe)

    def test_numbers_at_the_edge(self):
        stage = '{"forward_ms": %s, "input_backward_ms": 1, "weight_backward_ms": 1, "activation_bytes": %s}'
        drawn = "schedule", "compare", "--ranks", 2, "--microbatches", 2, "--cost"
        for forward, size, place in (("1e308", "1", "stages[0].forward_ms"), ("1", "1e18", "stages[0].activation_bytes")):
            cost = self.file("cost.json", '{"stages": [' + ", ".join([stage % (forward, size)] * 2) + "]}")
            self.refused([cost, place], *drawn, cost)
        self.refused_training(["--join-timeout is 1e+308", "at most"], join_timeout=1e308)

    def test_an_address_of_another_machine(self):
        for address in ("192.0.2.7", "no.such.host.invalid"):
            for processes in (1, 2):
                self.refused_training([f"--listen {address}"], listen=address, processes=processes)

    def test_schedule_files(self):
        good = ["0F0,0F1,0F2,0F3,0B0,0B1,0B2,0B3", "1F0,1B0,1F1,1B1,1F2,1B2,1F3,1B3"]
        for text, words in [
            (good[0] + "\n" + good[1].replace("1B1,", ""), ["1B1"]),
            (good[0] + "\n" + good[1].replace("1B1", "1B1,1B1"), ["1B1"]),
            (good[0].replace("0B3", "0B9") + "\n" + good[1], ["0"]),
            (good[0] + "\n" + good[1].replace("1F0,1B0", "1B0,1F0"), ["1B0"]),
            ("once upon a time", ["once upon a time"]),
            ("", []),
        ]:
            self.refused_training(["own.csv", *words], schedule=self.file("own.csv", text))
        self.refused_training(["2 stages"], schedule=self.file("own.csv", "\n".join(good)), stages=3)
        self.refused_training(["none.csv"], schedule=self.folder / "none.csv")
        self.refused_training(["own.txt", ".csv"], schedule=self.file("own.txt", "\n".join(good)))

    def test_a_schedule_that_trains_nothing(self):
        self.refused_training(["backward"], schedule="forward-only")
        self.refused_training(["own.csv", "backward"],
                              schedule=self.file("own.csv", "0F0,0F1,0F2,0F3\n1F0,1F1,1F2,1F3"))

    def test_a_folder_that_holds_another_run(self):
        out = self.must_train(self.folder / "out")
        self.refused_training(["holds another run", "--resume"])
        self.refused(["--width is 32", "16"], "train", "--resume", "--out", out, "--width", 32)
        self.refused_training(["is a file"], out=self.text)

    def test_checkpoints_that_are_damaged_or_foreign(self):
        out = self.must_train(self.folder / "out")
        for file in (out / "checkpoints").glob("*/*.safetensors"):
            file.write_bytes(b"not a checkpoint")
        self.refused(["no whole checkpoint", "stage-00"], "eval", out, "--data", self.text)
        self.refused(["no whole checkpoint", "stage-00"], "sample", out, "--prompt", "x")
        # Nothing is begun anew over what may be mended, and nothing of it is lost where that is wanted.
        self.refused(["no whole checkpoint", "step-00000012", "step-00000008", "--from-the-beginning"],
                     "train", "--resume", "--out", out)
        code, told, err = p.run("train", "--resume", "--from-the-beginning", "--out", out)
        self.assertEqual(code, 0, err)
        self.assertIn("as damaged-step-00000012", told + err)
        for step in (8, 10, 12):
            for file in (out / "checkpoints" / f"damaged-step-{step:08d}").glob("*.safetensors"):
                self.assertEqual(file.read_bytes(), b"not a checkpoint")
        self.assertNotIn("from-the-beginning", (out / "config.toml").read_text())
        # A link out of the folder is another's file.
        stage = out / "checkpoints" / "step-00000012" / "stage-000.safetensors"
        stage.rename(self.folder / "elsewhere")
        stage.symlink_to(self.folder / "elsewhere")
        shutil.rmtree(out / "checkpoints" / "step-00000008")
        shutil.rmtree(out / "checkpoints" / "step-00000010")
        self.refused(["stage-000", "a symbolic link"], "eval", out, "--data", self.text)
        # Whole, but of another network.
        other = self.must_train(self.folder / "other", width=32)
        shutil.rmtree(out / "checkpoints")
        shutil.copytree(other / "checkpoints", out / "checkpoints")
        self.refused(["the checkpoint holds layers.", "elements"], "eval", out, "--data", self.text)
        self.refused(["--width is 16", "32"], "train", "--resume", "--out", out)


if __name__ == "__main__":
    unittest.main()
