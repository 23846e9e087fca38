"""Runs in several processes: the bits of one, whatever is killed or stopped and whenever."""

import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest

import penstock_process as p

SEED = int(os.environ.get("PENSTOCK_CHAOS_SEED", "60"))
RUNS = int(os.environ.get("PENSTOCK_CHAOS_RUNS", "10"))
TORCHRUN = pathlib.Path(sys.executable).with_name("torchrun")


def workers_of(launcher):
    """The ranks of a launcher, by number, as process ids."""
    found = {}
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent != launcher:
                continue
            environment = dict(pair.split("=", 1) for pair in (folder / "environ").read_text().split("\0") if "=" in pair)
            found[int(environment["RANK"])] = int(folder.name)
        except (OSError, KeyError, ValueError, IndexError):
            continue  # gone meanwhile, or another child
    return found


def is_there(process):
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def environment_of(rank, world, port, **more):
    return {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), **more}


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class SameBits(p.Case):
    def test_threads_processes_and_both(self):
        for schedule, stages, layers in (("1f1b", 4, 4), ("interleaved-1f1b", 8, 8), ("zb-v", 8, 8)):
            settings = {"schedule": schedule, "stages": stages, "layers": layers, "steps": 4}
            threads = self.must_train(self.folder / f"{schedule}-threads", **settings)
            for processes in (4, 2):
                with self.subTest(schedule=schedule, processes=processes):
                    out = self.must_train(self.folder / f"{schedule}-{processes}", processes=processes, **settings)
                    self.assertEqual(p.losses(out), p.losses(threads))
                    self.assertEqual(p.tensors(out, 4), p.tensors(threads, 4))

    def test_a_run_goes_on_in_another_number_of_processes(self):
        whole = self.must_train(self.folder / "whole", stages=4)
        out = self.folder / "parts"
        for steps, processes, stages in ((4, 4, 4), (8, 1, 2), (12, 3, 3)):
            # The learning rate's course depends on the number of steps: all parts have the whole's.
            code, _, err = self.train(out, stages=stages, processes=processes, resume=steps > 4,
                                      steps=12) if steps == 12 else self.interrupted(out, stages, processes, steps)
            self.assertEqual(code, 0, err)
        self.assertEqual(p.losses(out), p.losses(whole))
        self.assertEqual(p.tensors(out, 12), p.tensors(whole, 12))

    def interrupted(self, out, stages, processes, steps):
        """Trains until some step after `steps` and stops it as a user would."""
        settings = {**p.SMALL, "data": self.text, "out": out, "stages": stages, "processes": processes,
                    "resume": (out / "config.toml").exists()}
        process = p.start("train", *p.flags(settings))
        wait_for_step(process, out, steps)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        return 0 if process.returncode in (0, 143) else process.returncode, "", err


def wait_for_step(process, out, step):
    file = out / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if step <= 0 or file.exists() and file.read_bytes().count(b"\n") >= step:
            return
        time.sleep(0.001)


class Chaos(p.Case):
    def test_whatever_is_killed_or_stopped(self):
        """A random rank is killed or stopped at a random moment, in a step, a save, a rendezvous or a restart."""
        undisturbed = self.must_train(self.folder / "undisturbed", stages=4)
        draw = random.Random(SEED)
        print(f"seed {SEED}, {RUNS} runs")
        for number in range(RUNS):
            elastic = draw.random() < 0.5
            out = self.folder / f"run-{number}"
            settings = {**p.SMALL, "data": self.text, "out": out, "stages": 4, "processes": 4, "restarts": 8,
                        "elastic": elastic, "peer-timeout": 2, "join-timeout": 10}
            launcher = p.start("train", *p.flags(settings))
            seen, told = set(), []
            for _ in range(draw.choice([1, 1, 2])):
                if draw.random() < 0.7:
                    wait_for_step(launcher, out, draw.randrange(p.SMALL["steps"]))
                time.sleep(draw.random() * 0.3)
                workers = workers_of(launcher.pid)
                seen |= set(workers.values())
                if not workers:
                    continue
                rank = draw.choice(sorted(workers))
                how = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP])
                told.append(f"{how.name} rank {rank}")
                try:
                    os.kill(workers[rank], how)
                except ProcessLookupError:
                    told.append("(gone)")
            _, err = launcher.communicate(timeout=240)
            with self.subTest(run=number, elastic=elastic, told=told):
                self.assertEqual(launcher.returncode, 0, err)
                self.assertEqual(p.losses(out), p.losses(undisturbed), err)
                self.assertEqual(p.tensors(out, p.SMALL["steps"]), p.tensors(undisturbed, p.SMALL["steps"]))
                self.assertEqual([process for process in seen if is_there(process)], [])
                left = sorted(path.name for path in (out / "checkpoints").iterdir() if not path.name.startswith("step-"))
                self.assertEqual(left, [])
            shutil.rmtree(out)

    def test_a_stop_is_saved_by_all(self):
        undisturbed = self.must_train(self.folder / "undisturbed", stages=4)
        out = self.folder / "stopped"
        settings = {**p.SMALL, "data": self.text, "out": out, "stages": 4, "processes": 4}
        launcher = p.start("train", *p.flags(settings))
        wait_for_step(launcher, out, 3)
        launcher.send_signal(signal.SIGTERM)
        _, err = launcher.communicate(timeout=60)
        self.assertIn(launcher.returncode, (0, 143), err)
        code, _, err = p.run("train", "--resume", "--out", out)
        self.assertEqual(code, 0, err)
        self.assertEqual(p.losses(out), p.losses(undisturbed))

    def test_a_stopped_rank_is_named_with_who_waits_for_it(self):
        out = self.folder / "hung"
        settings = {**p.SMALL, "data": self.text, "out": out, "stages": 4, "processes": 4, "peer-timeout": 1,
                    "steps": 100000, "checkpoint-every": 0}
        launcher = p.start("train", *p.flags(settings))
        wait_for_step(launcher, out, 3)
        os.kill(workers_of(launcher.pid)[2], signal.SIGSTOP)
        _, err = launcher.communicate(timeout=60)
        self.assertEqual(launcher.returncode, 1, err)
        self.assertRegex(err, r"process 2 \(rank 2\) is lost: it has said nothing for 1\.0 s")
        self.assertRegex(err, r"rank \d, stage \d, microbatch \d, action \w+: waits for rank \d")


class Together(p.Case):
    """Processes that are started by somebody else."""

    def start_rank(self, rank, world, port, out=None, **changes):
        settings = {**p.SMALL, "data": self.text, "out": out or self.folder / "out", "steps": 3, "join-timeout": 10}
        settings.update({name.replace("_", "-"): value for name, value in changes.items()})
        return p.start("train", *p.flags(settings), env=environment_of(rank, world, port))

    def outcomes(self, processes):
        ended = []
        for process in processes:
            _, err = process.communicate(timeout=120)
            ended.append((process.returncode, err))
        return ended

    def test_two_ranks_by_hand(self):
        port = free_port()
        for code, err in self.outcomes([self.start_rank(rank, 2, port) for rank in (1, 0)]):
            self.assertEqual(code, 0, err)
        alone = self.must_train(self.folder / "alone", steps=3)
        self.assertEqual(p.losses(self.folder / "out"), p.losses(alone))

    @unittest.skipUnless(TORCHRUN.exists(), "no torchrun beside this Python")
    def test_under_torchrun(self):
        settings = {**p.SMALL, "data": self.text, "out": self.folder / "out", "steps": 3}
        done = subprocess.run([TORCHRUN, "--nproc-per-node", "2", "--master-port", str(free_port()), "--no-python",
                               p.PENSTOCK, "train", *p.flags(settings)], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        alone = self.must_train(self.folder / "alone", steps=3)
        self.assertEqual(p.losses(self.folder / "out"), p.losses(alone))

    def assert_all_fail(self, processes, expected):
        for code, err in self.outcomes(processes):
            self.assertIn(code, (1, 2), err)
            lines = [line for line in err.splitlines() if line.startswith("penstock: ")]
            self.assertEqual(len(lines), 1, err)
            self.assertRegex(lines[0], expected)

    def test_settings_that_differ(self):
        port = free_port()
        self.assert_all_fail([self.start_rank(0, 2, port), self.start_rank(1, 2, port, batch=8)],
                             "process 1 has batch = 8, process 0 has batch = 6")

    def test_data_that_differ(self):
        port = free_port()
        other = self.folder / "other.txt"
        other.write_text(self.text.read_text().replace("bubble", "babble"))
        self.assert_all_fail([self.start_rank(0, 2, port), self.start_rank(1, 2, port, data=other)],
                             "process 1 has data of|process 1 has data = ")

    def test_a_rank_that_never_comes(self):
        self.assert_all_fail([self.start_rank(0, 3, free_port(), stages=3, join_timeout=1)],
                             r"no process 1 \(rank 1\), process 2 \(rank 2\) within 1 s")

    def test_nobody_to_join(self):
        self.assert_all_fail([self.start_rank(1, 2, free_port(), join_timeout=1)], "nobody at 127.0.0.1:")

    def test_a_port_in_use(self):
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            port = listening.getsockname()[1]
            self.assert_all_fail([self.start_rank(0, 2, port)], f"port {port} of 127.0.0.1: Address already in use")

    def test_the_same_rank_twice(self):
        port = free_port()
        processes = [self.start_rank(0, 3, port, stages=3)]
        time.sleep(0.5)
        processes += [self.start_rank(1, 3, port, stages=3), self.start_rank(1, 3, port, stages=3)]
        ended = self.outcomes(processes)
        self.assertTrue(all(code != 0 for code, _ in ended), ended)
        self.assertTrue(any("another process 1 of this run" in err for _, err in ended), ended)

    def test_variables_that_are_missing_or_wrong(self):
        settings = p.flags({**p.SMALL, "data": self.text, "out": self.folder / "out"})
        for changes, expected in (({"MASTER_ADDR": ""}, "MASTER_ADDR"), ({"MASTER_PORT": "x"}, "MASTER_PORT"),
                                  ({"RANK": "7"}, "RANK"), ({"MASTER_ADDR": "no.such.host.invalid"}, "no.such.host")):
            for rank in (0, 1):
                environment = {**environment_of(rank, 2, free_port()), **changes}
                code, _, err = p.run("train", *settings, env=environment)
                self.assertEqual(code, 2, err)
                self.assertRegex(err, expected)
                self.assertEqual(len(err.splitlines()), 1, err)


if __name__ == "__main__":
    unittest.main()
