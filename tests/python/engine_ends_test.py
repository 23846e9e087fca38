"""How calls and pipelines end: Ctrl-C, other threads, forks, the interpreter's end. Whatever hangs is ended by a time-out, and fails."""

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import weakref
from pathlib import Path

import penstock as ps
import torch
from torch import nn

torch.set_num_threads(1)
HERE = Path(__file__).resolve()
PATIENCE = 120
X = torch.ones(8, 4)


def square(output, target):
    return (output - target).square().mean()


def linears(count=4):
    return [nn.Linear(4, 4) for _ in range(count)]


class Calls(nn.Module):
    """A layer that calls a function, and then returns its input times a weight."""

    def __init__(self, function):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.function = function

    def forward(self, x):
        self.function()
        return x * self.weight


def pipeline(function, **settings):
    return ps.Pipeline([Calls(function), *linears(3)], square, **{"ranks": 2, "microbatches": 4, **settings})


def run(code, **options):
    code = "import torch\nfrom torch import nn\nimport penstock as ps\ntorch.set_num_threads(1)\n" + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, **options)


def wait_until(holds):
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {PATIENCE} s")
        time.sleep(0.005)


class Once:
    """Does something at its first call alone."""

    def __init__(self, act):
        self.act = act
        self.lock = threading.Lock()

    def __call__(self):
        if self.lock.acquire(blocking=False):
            self.act()


class Interrupts(unittest.TestCase):
    def setUp(self):
        self.seen = []

        def seen_and_raised(number, frame):
            self.seen.append(number)
            raise KeyboardInterrupt

        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, seen_and_raised))

    def press(self, times):
        """Ctrl-C so many times, each when the last has been seen."""
        for already in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            wait_until(lambda: len(self.seen) > already)

    def test_the_first_lets_the_step_end(self):
        for schedule in ("1f1b", "zb-v"):
            self.seen.clear()
            pipe = pipeline(Once(lambda: self.press(1)), schedule=schedule)
            with self.assertRaises(KeyboardInterrupt):
                pipe.step(X, X)
            self.assertEqual((pipe.steps, len(self.seen)), (1, 1))
            self.assertGreater(pipe.step(X, X).loss, 0)
            self.assertEqual(pipe.steps, 2)
            pipe.close()

    def test_the_second_ends_it_at_its_next_layer(self):
        pipe = pipeline(Once(lambda: self.press(2)))
        with self.assertRaises(KeyboardInterrupt):
            pipe.step(X, X)
        with self.assertRaisesRegex(ps.RunFailed, "failed before"):
            pipe.step(X, X)
        before = threading.active_count()
        del pipe
        gc.collect()
        self.assertLessEqual(threading.active_count(), before)

    def test_one_while_layers_are_made(self):
        def made():
            self.press(1)
            return nn.Linear(4, 4)

        with self.assertRaises(KeyboardInterrupt):
            ps.Pipeline([made, *linears(3)], square, ranks=2, microbatches=4)
        ps.Pipeline(linears(), square, ranks=2, microbatches=4).close()

    def test_one_that_a_layer_fails_with(self):
        def fail():
            self.press(1)
            raise KeyError("too")

        pipe = pipeline(fail)
        with self.assertRaises(KeyboardInterrupt):
            pipe.step(X, X)
        pipe.close()

    def test_one_as_the_step_fails_closes_it(self):
        def fail():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            raise KeyError("too")

        pipe = pipeline(fail)
        with self.assertRaises(KeyboardInterrupt), pipe:
            pipe.step(X, X)
        self.assertEqual(repr(pipe), "Pipeline(closed)")

    def test_a_second_one_while_it_closes(self):
        pipe = pipeline(nn.Linear(4, 4))
        end, ends = pipe._end, []

        def interrupted_once(raised):
            ends.append(raised)
            if len(ends) == 1:
                raise KeyboardInterrupt
            end(raised)

        pipe._end = interrupted_once
        with self.assertRaises(KeyboardInterrupt), pipe:
            raise KeyboardInterrupt
        self.assertEqual(repr(pipe), "Pipeline(closed)")

    def test_a_program_of_threads_ends(self):
        with tempfile.TemporaryDirectory() as folder:
            self.interrupt([sys.executable, str(HERE), "steps", folder], folder, processes=1)

    def test_a_program_of_processes_ends(self):
        with tempfile.TemporaryDirectory() as folder:
            line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(HERE), "steps", folder]
            self.interrupt(line, folder, processes=2)

    def interrupt(self, line, folder, processes):
        """Presses Ctrl-C when all are at their steps."""
        started = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        with started:
            try:
                ready = [Path(folder, f"{process}.ready") for process in range(processes)]
                wait_until(lambda: all(file.exists() for file in ready) or started.poll() is not None)
                self.assertIsNone(started.poll(), started.stderr.read() if started.poll() is not None else "")
                started.send_signal(signal.SIGINT)
                said = started.communicate(timeout=PATIENCE)[1]
            finally:
                if started.poll() is None:
                    os.killpg(started.pid, signal.SIGKILL)
        self.assertNotEqual(started.returncode, 0)
        self.assertIn("KeyboardInterrupt", said)
        ends = [json.loads(Path(folder, f"{process}.json").read_text()) for process in range(processes)]
        self.assertIn("KeyboardInterrupt", [end["raised"] for end in ends])
        for end in ends:
            # The one that hears of it from the other ends with its reason.
            self.assertTrue(end["raised"] == "KeyboardInterrupt" or "KeyboardInterrupt" in end["said"], end)
            self.assertEqual(end["closed"], "Pipeline(closed)", end)
            with self.assertRaises(ProcessLookupError):
                os.kill(end["process"], 0)


def steps(folder):
    """Steps without an end, in a process that may be one of several."""
    pipe = ps.Pipeline(linears(), square, ranks=2, microbatches=4)
    number, end = pipe.process, {"process": os.getpid()}
    try:
        with pipe:
            while True:
                pipe.step(X, X)
                Path(folder, f"{number}.ready").touch()
    except BaseException as raised:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end.update(raised=type(raised).__name__, said=str(raised), closed=repr(pipe))
        Path(folder, f"{number}.json").write_text(json.dumps(end))
        raise


class Threads(unittest.TestCase):
    """A step that waits in its first layer, in a thread of its own."""

    def setUp(self):
        self.in_layer, self.go_on = threading.Event(), threading.Event()
        self.raised = None
        self.pipe = pipeline(Once(lambda: (self.in_layer.set(), self.go_on.wait(PATIENCE))))
        self.thread = threading.Thread(target=self.step)
        self.thread.start()
        self.assertTrue(self.in_layer.wait(PATIENCE))

    def tearDown(self):
        self.go_on.set()
        self.thread.join(PATIENCE)
        self.pipe.close()

    def step(self):
        try:
            self.pipe.step(X, X)
        except ps.Error as error:
            self.raised = error

    def test_another_threads_call_is_refused_meanwhile(self):
        for call in (lambda: self.pipe.step(X, X), lambda: self.pipe(X), lambda: self.pipe.state_dict(), lambda: self.pipe.save("no")):
            with self.assertRaisesRegex(ps.BadInput, "one call at a time"):
                call()
        self.assertEqual(self.pipe.steps, 0)
        self.go_on.set()
        self.thread.join(PATIENCE)
        self.assertIsNone(self.raised)
        self.assertGreater(self.pipe.step(X, X).loss, 0)

    def test_closing_ends_the_step_at_its_next_layer(self):
        closing = threading.Thread(target=self.pipe.close)
        closing.start()
        wait_until(lambda: repr(self.pipe) == "Pipeline(closed)")
        self.go_on.set()
        closing.join(PATIENCE)
        self.thread.join(PATIENCE)
        self.assertFalse(closing.is_alive() or self.thread.is_alive())
        self.assertRegex(str(self.raised), "closed while it was at work")
        self.assertIsInstance(self.raised, ps.RunFailed)


class Ends(unittest.TestCase):
    def test_calls_from_within_a_layer_are_refused(self):
        for call, words in ((lambda: pipe.step(X, X), "one call at a time"), (lambda: pipe.close(), "within one of its own calls")):
            pipe = pipeline(call)
            with self.assertRaisesRegex(ps.BadInput, words):
                pipe.step(X, X)
            pipe.close()
            self.assertEqual(repr(pipe), "Pipeline(closed)")

    def test_deleting_in_any_state(self):
        for failed in (False, True):
            for steps in (0, 1):
                pipe = pipeline((lambda: 1 / 0) if failed else (lambda: None))
                for _ in range(steps):
                    try:
                        pipe.step(X, X)
                    except ps.RunFailed:
                        pass
                before = threading.active_count()
                del pipe
                gc.collect()
                self.assertLessEqual(threading.active_count(), before)

    def test_deleting_in_a_cycle_of_references(self):
        class Trainer:
            def __init__(self, **settings):
                self.layers = [Calls(lambda: None), *linears(3)]
                self.layers[0].trainer = self
                self.layers[1].register_forward_hook(lambda module, inputs, output: self.seen())
                settings.setdefault("optimizer", lambda parameters: self.seen() or torch.optim.SGD(parameters, lr=0.1))
                self.pipe = ps.Pipeline([*self.layers[:3], self.last], self.loss, ranks=2, microbatches=4, **settings)

            def last(self):
                return self.layers[3]

            def loss(self, output, target):
                return square(output, target)

            def seen(self):
                return None

        for settings in ({}, {"schedule": "zb-h1", "recompute": True}, {"optimizer": ps.AdamW()}):
            for failed in (False, True):
                trainer = Trainer(**settings)
                trainer.pipe.step(X, X)
                if failed:
                    trainer.layers[2].forward = lambda x, trainer=trainer: 1 / 0
                    try:
                        trainer.pipe.step(X, X)
                    except ps.RunFailed:
                        pass
                kept = [weakref.ref(one) for one in (trainer, trainer.pipe, *trainer.layers)]
                del trainer
                gc.collect()
                gc.collect()
                self.assertEqual([reference() for reference in kept], [None] * len(kept))

    def test_what_python_keeps_of_a_thread_stays_from_call_to_call(self):
        local, seen = threading.local(), []

        def count():
            local.calls = getattr(local, "calls", 0) + 1
            seen.append(local.calls)

        with pipeline(count, ranks=1) as pipe:
            pipe.step(X, X)
            pipe.step(X, X)
        self.assertEqual(max(seen), len(seen))

    def test_the_interpreter_ends_with_pipelines_alive(self):
        ended = run(
            """
            pipe = ps.Pipeline([nn.Linear(4, 4), nn.Linear(4, 4)], lambda o, t: (o - t).square().mean(), ranks=2, microbatches=2)
            pipe.cycle = pipe
            pipe.step(torch.ones(4, 4), torch.ones(4, 4))
            print("done")
            """
        )
        self.assertEqual((ended.returncode, ended.stdout), (0, "done\n"), ended.stderr)

    def test_the_interpreter_ends_while_another_thread_is_in_a_step(self):
        ended = run(
            """
            import threading
            begun = threading.Event()
            class Begins(nn.Linear):
                def forward(self, x):
                    begun.set()
                    return super().forward(x)
            pipe = ps.Pipeline([Begins(4, 4), nn.Linear(4, 4)], lambda o, t: (o - t).square().mean(), ranks=2, microbatches=2)
            def steps():
                try:
                    while True:
                        pipe.step(torch.ones(4, 4), torch.ones(4, 4))
                except ps.Error:
                    pass
            threading.Thread(target=steps, daemon=True).start()
            begun.wait()
            print("done")
            """
        )
        self.assertEqual((ended.returncode, ended.stdout), (0, "done\n"), ended.stderr)

    def test_a_fork_makes_pipelines_of_its_own(self):
        ended = run(
            """
            import os
            def make():
                return ps.Pipeline([nn.Linear(4, 4), nn.Linear(4, 4)], lambda o, t: (o - t).square().mean(), ranks=2, microbatches=2)
            x = torch.ones(4, 4)
            parents = make()
            parents.step(x, x)
            child = os.fork()
            if child == 0:
                try:
                    parents.step(x, x)
                except ps.BadInput as error:
                    print(error, flush=True)
                del parents
                own = make()
                print(own.step(x, x).loss > 0, flush=True)
                own.close()
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            print(parents.step(x, x).loss > 0)
            """
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertRegex(ended.stdout, "forked.*\nTrue\nTrue\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["steps"]:
        steps(sys.argv[2])
    else:
        unittest.main()
