"""Runs in several processes: the bits of one, whoever starts them, and what is told where they do not fit together."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import unittest

import penstock_process as p

TORCHRUN = pathlib.Path(sys.executable).with_name("torchrun")


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

    def test_boundaries_in_bf16(self):
        settings = {"stages": 4, "steps": 4}
        same = self.must_train(self.folder / "same", **settings)
        threads = self.must_train(self.folder / "threads", boundary_dtype="bf16", **settings)
        self.assertNotEqual(p.losses(threads), p.losses(same))
        for step, loss, _ in p.losses(threads):
            self.assertAlmostEqual(loss, p.losses(same)[step - 1][1], delta=0.01)
        for processes in (4, 2):
            out = self.must_train(self.folder / f"processes-{processes}", boundary_dtype="bf16", processes=processes,
                                  **settings)
            self.assertEqual(p.losses(out), p.losses(threads))
            self.assertEqual(p.tensors(out, 4), p.tensors(threads, 4))
        # A byte a tensor says what was narrowed.
        for whole, half in zip(self.links(same), self.links(self.folder / "processes-4"), strict=True):
            self.assertEqual(whole["messages"], half["messages"])
            self.assertEqual(half["bytes"], whole["bytes"] / 2 + half["messages"])
            self.assertTrue(half["between_processes"])

    def links(self, out):
        links = json.loads((out / "links.json").read_text())
        self.assertEqual([(link["from"], link["to"]) for link in links],
                         [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)])
        for link in links:
            # Four microbatches in each of four steps.
            self.assertEqual(link["messages"], 16)
            self.assertTrue(0 <= link["hidden"] <= 1, link)
            self.assertGreaterEqual(link["waited_ms"], 0)
        return links

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
        p.wait_for_step(process, out, steps)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        return 0 if process.returncode in (0, 143) else process.returncode, "", err


class Together(p.Case):
    """Processes that are started by somebody else."""

    def start_rank(self, rank, world, port, out=None, variables=None, **changes):
        settings = {**p.SMALL, "data": self.text, "out": out or self.folder / "out", "steps": 3, "join-timeout": 10}
        settings.update({name.replace("_", "-"): value for name, value in changes.items()})
        return p.start("train", *p.flags(settings), env=p.environment_of(rank, world, port, **(variables or {})))

    def outcomes(self, processes):
        ended = []
        for process in processes:
            _, err = process.communicate(timeout=120)
            ended.append((process.returncode, err))
        return ended

    def test_two_ranks_by_hand(self):
        port = p.free_port()
        for code, err in self.outcomes([self.start_rank(rank, 2, port) for rank in (1, 0)]):
            self.assertEqual(code, 0, err)
        alone = self.must_train(self.folder / "alone", steps=3)
        self.assertEqual(p.losses(self.folder / "out"), p.losses(alone))

    def test_each_has_the_cores_of_its_machine(self):
        cores = len(os.sched_getaffinity(0))
        for of_machine in (1, 2):
            with self.subTest(of_machine=of_machine):
                port = p.free_port()
                out = self.folder / f"of-{of_machine}"
                variables = {"LOCAL_WORLD_SIZE": str(of_machine)}
                started = [self.start_rank(rank, 2, port, out, variables, threads_per_rank=0) for rank in (0, 1)]
                for code, err in self.outcomes(started):
                    self.assertEqual(code, 0, err)
                self.assertIn(f"\nthreads-per-rank = {max(1, cores // of_machine)} ", (out / "config.toml").read_text())

    @unittest.skipUnless(TORCHRUN.exists(), "no torchrun beside this Python")
    def test_under_torchrun(self):
        settings = {**p.SMALL, "data": self.text, "out": self.folder / "out", "steps": 3}
        done = subprocess.run([TORCHRUN, "--nproc-per-node", "2", "--master-port", str(p.free_port()), "--no-python",
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
        port = p.free_port()
        self.assert_all_fail([self.start_rank(0, 2, port), self.start_rank(1, 2, port, batch=8)],
                             "process 1 has batch = 8, process 0 has batch = 6")

    def test_data_that_differ(self):
        port = p.free_port()
        other = self.folder / "other.txt"
        other.write_text(self.text.read_text().replace("bubble", "babble"))
        self.assert_all_fail([self.start_rank(0, 2, port), self.start_rank(1, 2, port, data=other)],
                             "process 1 has data of|process 1 has data = ")

    def test_a_rank_that_never_comes(self):
        self.assert_all_fail([self.start_rank(0, 3, p.free_port(), stages=3, join_timeout=1)],
                             r"no process 1 \(rank 1\), process 2 \(rank 2\) within 1 s")

    def test_nobody_to_join(self):
        self.assert_all_fail([self.start_rank(1, 2, p.free_port(), join_timeout=1)], "nobody at 127.0.0.1:")

    def test_a_process_0_that_takes_connections_and_never_answers(self):
        """As one that was stopped before it could: the kernel goes on taking connections for it."""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            port = listening.getsockname()[1]
            self.assert_all_fail([self.start_rank(1, 2, port, join_timeout=1)], "nobody at 127.0.0.1:")

    def test_process_0_is_stopped_while_the_others_come(self):
        port = p.free_port()
        first, second = (self.start_rank(rank, 3, port, stages=3, join_timeout=4) for rank in (0, 1))
        self.assertTrue(p.comes_true(lambda: p.connections(port, p.CONNECTED)), "process 1 has come")
        os.kill(first.pid, signal.SIGSTOP)
        try:
            self.assert_all_fail([second], "process 0 gone or stopped|nobody at|within 4 s")
        finally:
            os.kill(first.pid, signal.SIGCONT)
            first.kill()
            first.communicate()

    def test_a_port_in_use(self):
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            port = listening.getsockname()[1]
            self.assert_all_fail([self.start_rank(0, 2, port)], f"port {port} of 127.0.0.1: Address already in use")

    def test_the_same_rank_twice(self):
        port = p.free_port()
        processes = [self.start_rank(0, 3, port, stages=3)]
        self.assertTrue(p.comes_true(lambda: p.connections(port, p.LISTENING)))
        processes += [self.start_rank(1, 3, port, stages=3), self.start_rank(1, 3, port, stages=3)]
        ended = self.outcomes(processes)
        self.assertTrue(all(code != 0 for code, _ in ended), ended)
        self.assertTrue(any("another process 1 of this run" in err for _, err in ended), ended)

    def test_variables_that_are_missing_or_wrong(self):
        settings = p.flags({**p.SMALL, "data": self.text, "out": self.folder / "out"})
        for changes, expected in (({"MASTER_ADDR": ""}, "MASTER_ADDR"), ({"MASTER_PORT": "x"}, "MASTER_PORT"),
                                  ({"RANK": "7"}, "RANK"), ({"MASTER_ADDR": "no.such.host.invalid"}, "no.such.host")):
            for rank in (0, 1):
                environment = {**p.environment_of(rank, 2, p.free_port()), **changes}
                code, _, err = p.run("train", *settings, env=environment)
                self.assertEqual(code, 2, err)
                self.assertRegex(err, expected)
                self.assertEqual(len(err.splitlines()), 1, err)


if __name__ == "__main__":
    unittest.main()
