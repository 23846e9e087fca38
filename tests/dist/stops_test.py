"""Runs that are asked to stop, once or twice, by any signal, whoever gets it: all is saved, and nothing is left."""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import unittest

import penstock_process as p

SEED = int(os.environ.get("PENSTOCK_STOPS_SEED", "25"))
RUNS = int(os.environ.get("PENSTOCK_STOPS_RUNS", "20"))

TORCHRUN = pathlib.Path(sys.executable).with_name("torchrun")
# How mpirun hands a signal on, and to whom, differs: its runs are drawn only on request.
MPIRUN = shutil.which("mpirun") if "PENSTOCK_STOPS_MPIRUN" in os.environ else None
# More steps than any run makes here: one that comes to an end was asked to stop, however slow the tests are to ask. The
# learning rate must not depend on their number, since a run goes on with fewer.
STEPS = 1_000_000
LATEST_STOP = 50
MORE_STEPS = 5
SETTINGS = {**p.SMALL, "steps": STEPS, "final-learning-rate": 1, "checkpoint-every": 0, "eval-every": 0}


def starters():
    """How a run of two ranks is started, as what stands before the command and its further settings."""
    port = str(p.free_port())
    known = {"threads": ((), {}), "processes": ((), {"processes": 2})}
    if TORCHRUN.exists():
        known["torchrun"] = ((TORCHRUN, "--nproc-per-node", "2", "--master-port", port, "--no-python"), {})
    if MPIRUN:
        known["mpirun"] = ((MPIRUN, "-n", "2", "--allow-run-as-root", "--oversubscribe", "-x", "MASTER_ADDR=127.0.0.1",
                            "-x", f"MASTER_PORT={port}"), {})
    return known


def signal_all(processes, how):
    for process in processes:
        try:
            os.kill(process, how)
        except ProcessLookupError:
            pass  # it has left


class Stops(p.Case):
    def setUp(self):
        super().setUp()
        # Whoever started the tests may have it ignored, and so would every run.
        self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_DFL))

    def receivers(self, whom, first, workers):
        """Whom a request goes to: one process after the other, as from one `kill`."""
        if whom == "launcher":
            return [first]
        if whom == "worker":
            return [workers[self.draw.choice(sorted(workers))]] if workers else [first]
        if whom == "group":
            return p.group_of(first)
        return [first, *p.descendants_of(first)]

    def stopped_run(self, out, starter, update, how, whom, twice, step):
        """The exit code, standard error, and every process that was there."""
        before, more = starters()[starter]
        process = p.start("train", *p.flags({**SETTINGS, **update, **more, "data": self.text, "out": out}),
                          before=before, start_new_session=True)
        p.wait_for_step(process, out, step)
        everybody = [process.pid, *p.descendants_of(process.pid)]
        receivers = self.receivers(whom, process.pid, p.workers_of(process.pid))
        signal_all(receivers, how)
        if twice:
            time.sleep(self.draw.random() * 0.5)
            signal_all(receivers, how)
        _, err = process.communicate(timeout=120)
        self.assertTrue(p.comes_true(lambda: not any(map(p.is_there, everybody))), "somebody is left")
        return process.returncode, err

    def check_saved(self, out, update, step, err):
        """That the run has saved the step that it was in, and goes on to the bits of a run that nobody stopped."""
        steps = len(p.metrics(out))
        self.assertGreaterEqual(steps, step, err)
        self.assertEqual([path.name for path in (out / "checkpoints").iterdir()], [f"step-{steps:08d}"], err)
        end = steps + MORE_STEPS
        code, _, err = p.run("train", "--resume", "--steps", end, "--out", out)
        self.assertEqual(code, 0, err)
        undisturbed = self.must_train(out.with_name(f"{out.name}-undisturbed"), **{**SETTINGS, **update, "steps": end})
        self.assertEqual(p.losses(out), p.losses(undisturbed))
        self.assertEqual(p.tensors(out, end), p.tensors(undisturbed, end))
        shutil.rmtree(undisturbed)

    def test_every_stop_is_saved(self):
        self.draw = random.Random(SEED)
        print(f"seed {SEED}, {RUNS} runs by {', '.join(starters())}")
        for number in range(RUNS):
            starter = self.draw.choice(sorted(starters()))
            how = self.draw.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
            whom = self.draw.choice(["launcher", "worker", "group", "all"])
            # mpirun hands on what it is sent as it likes; SIGHUP ends it alone, and its workers go on.
            if starter == "mpirun" and whom in ("launcher", "group"):
                whom = "all"
            twice = self.draw.random() < 0.5
            step = self.draw.randrange(1, LATEST_STOP)
            # Ranks that wait for the norm, that go on without one, and that take back what the norm forbids.
            update = self.draw.choice([{}, {"clip": 0}, {"clip": 2, "post-validation": True}])
            out = self.folder / f"run-{number}"
            with self.subTest(run=number, starter=starter, how=how.name, whom=whom, twice=twice, step=step,
                              update=update):
                code, err = self.stopped_run(out, starter, update, how, whom, twice, step)
                # The codes of others are their own.
                if starter in ("threads", "processes"):
                    self.assertEqual(code, 128 + how, err)
                self.check_saved(out, update, step, err)
            shutil.rmtree(out, ignore_errors=True)

    def test_a_stop_of_one_worker_is_no_failure(self):
        """It is no lost process: nobody starts the run again."""
        for how in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(how=how.name):
                out = self.folder / how.name
                process = p.start("train", *p.flags({**SETTINGS, "processes": 2, "restarts": 3,
                                                     "data": self.text, "out": out}))
                p.wait_for_step(process, out, 3)
                os.kill(p.workers_of(process.pid)[1], how)
                _, err = process.communicate(timeout=120)
                self.assertEqual(process.returncode, 128 + how, err)
                self.assertNotIn("restart", err)

    def test_workers_started_by_hand_all_say_which_signal(self):
        out, port = self.folder / "out", p.free_port()
        settings = {**SETTINGS, "data": self.text, "out": out}
        workers = [p.start("train", *p.flags(settings), env=p.environment_of(rank, 2, port)) for rank in (0, 1)]
        p.wait_for_step(workers[0], out, 3)
        workers[1].send_signal(signal.SIGINT)
        for worker in workers:
            _, err = worker.communicate(timeout=120)
            self.assertEqual(worker.returncode, 130, err)

    def test_a_stop_while_the_others_do_not_come(self):
        worker = p.start("train", *p.flags({**SETTINGS, "data": self.text, "out": self.folder / "out"}),
                         env=p.environment_of(0, 2, port := p.free_port()))
        # It takes connections once it watches for signals.
        self.assertTrue(p.comes_true(lambda: p.is_listening(port) or worker.poll() is not None))
        worker.send_signal(signal.SIGTERM)
        told, err = worker.communicate(timeout=60)
        self.assertEqual(worker.returncode, 143, err)
        self.assertIn("nothing was there to be saved", told)

    def test_a_stop_of_one_that_waits_for_the_others_is_heard_by_those_that_come(self):
        """They do not wait for it until --join-timeout."""
        port = p.free_port()
        settings = p.flags({**SETTINGS, "data": self.text, "out": self.folder / "out", "join-timeout": 100000})
        first = p.start("train", *settings, env=p.environment_of(0, 2, port))
        self.assertTrue(p.comes_true(lambda: p.connections(port, p.LISTENING) or first.poll() is not None))
        # Held until the other calls, however long that takes to start: it waits for it for some seconds only.
        first.send_signal(signal.SIGSTOP)
        first.send_signal(signal.SIGINT)
        self.assertTrue(p.comes_true(lambda: p.stat_of(first.pid)[0] == "T"))
        before = p.connections(port, p.CONNECTED)
        second = p.start("train", *settings, env=p.environment_of(1, 2, port))
        self.assertTrue(p.comes_true(lambda: p.connections(port, p.CONNECTED) > before or second.poll() is not None))
        first.send_signal(signal.SIGCONT)
        for worker in (first, second):
            _, err = worker.communicate(timeout=120)
            self.assertEqual(worker.returncode, 130, err)

    def test_a_stop_of_one_worker_while_all_come_together_ends_all(self):
        for rank in (0, 1):
            with self.subTest(rank=rank):
                process = p.start("train", *p.flags({**SETTINGS, "data": self.text, "out": self.folder / f"{rank}",
                                                     "processes": 2, "join-timeout": 100000}))
                self.assertTrue(p.comes_true(lambda: len(p.workers_of(process.pid)) == 2 or process.poll() is not None))
                os.kill(p.workers_of(process.pid)[rank], signal.SIGHUP)
                _, err = process.communicate(timeout=120)
                self.assertEqual(process.returncode, 129, err)

    def test_an_evaluation_is_given_up(self):
        """It may take longer than whoever asks the run to stop waits."""
        long = {**SETTINGS, "data": self.text, "eval-samples": 1_000_000, "held-out": 0.9, "batch": 4, "context": 4}
        self.text.write_text(self.text.read_text() * 20)
        for processes in (1, 2):
            with self.subTest("between steps", processes=processes):
                out = self.folder / f"between-{processes}"
                process = p.start("train", *p.flags({**long, "eval-every": 1, "processes": processes, "out": out}))
                self.assertTrue(p.comes_true(lambda: (out / "config.toml").exists() or process.poll() is not None))
                process.send_signal(signal.SIGTERM)
                _, err = process.communicate(timeout=120)
                self.assertEqual(process.returncode, 143, err)
                self.assertEqual([line["step"] for line in p.metrics(out)], [1])
            with self.subTest("at the end", processes=processes):
                out = self.folder / f"end-{processes}"
                process = p.start("train", *p.flags({**long, "steps": 3, "processes": processes, "out": out}))
                saved = out / "checkpoints" / "step-00000003"
                self.assertTrue(p.comes_true(lambda: saved.exists() or process.poll() is not None))
                process.send_signal(signal.SIGTERM)
                told, err = process.communicate(timeout=120)
                self.assertEqual(process.returncode, 143, err)
                self.assertIn("stopped after step 3, which is saved", told)

    def test_a_worker_that_is_stopped_before_all_have_met_is_found(self):
        """Long before --join-timeout. The others are not there yet, so only the launcher can know."""
        out = self.folder / "out"
        process = p.start("train", *p.flags({**SETTINGS, "data": self.text, "out": out, "processes": 2,
                                             "peer-timeout": 1, "join-timeout": 100000}))
        self.assertTrue(p.comes_true(lambda: len(p.workers_of(process.pid)) == 2 or process.poll() is not None))
        os.kill(p.workers_of(process.pid)[1], signal.SIGSTOP)
        _, err = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 1, err)
        self.assertIn("rank 1", err)

    def test_a_second_request_ends_a_single_process_unsaved(self):
        """With another code than that of a run that is saved."""
        out = self.folder / "out"
        process = p.start("train", *p.flags({**SETTINGS, "steps": 1, "layers": 64, "width": 512, "context": 256,
                                             "data": self.text, "out": out}))
        # A step that takes longer than the second in which repeats count as one request.
        self.assertTrue(p.comes_true(lambda: (out / "config.toml").exists() or process.poll() is not None))
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        self.assertEqual(process.returncode, -signal.SIGKILL)
        process.communicate()

    def test_nohup_stays_what_it_is(self):
        out = self.folder / "out"
        process = p.start("train", *p.flags({**SETTINGS, "data": self.text, "out": out}), before=("nohup",))
        p.wait_for_step(process, out, 3)
        process.send_signal(signal.SIGHUP)
        p.wait_for_step(process, out, len(p.metrics(out)) + 3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 130, err)


if __name__ == "__main__":
    unittest.main()
