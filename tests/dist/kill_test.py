"""A run that is killed at any moment goes on from its last whole checkpoint to the same bits."""

import os
import random
import signal
import time
import unittest

import penstock_process as p

SEED = int(os.environ.get("PENSTOCK_KILL_SEED", "20"))
MOMENTS = int(os.environ.get("PENSTOCK_KILL_MOMENTS", "20"))


class Kill(p.Case):
    def test_twenty_moments(self):
        # Ranks that wait for the norm, that go on without one, and that take back what the norm forbids.
        updates = [{}, {"clip": 0}, {"clip": 2, "post-validation": True}]
        undisturbed = [self.must_train(self.folder / f"undisturbed-{number}", **{**p.SMALL, **update})
                       for number, update in enumerate(updates)]
        draw = random.Random(SEED)
        print(f"seed {SEED}")
        for moment in range(MOMENTS):
            out = self.folder / f"killed-{moment}"
            after_step = draw.randrange(p.SMALL["steps"])
            later_s = draw.random() * 0.05
            kind = draw.randrange(len(updates))
            settings = {**p.SMALL, **updates[kind], "data": self.text, "out": out}
            process = p.start("train", *p.flags(settings))
            p.wait_for_step(process, out, after_step)
            time.sleep(later_s)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            # Another number of stages than before the kill: the numbers must not notice.
            code, told, err = p.run("train", *p.flags({**settings, "resume": True, "stages": draw.choice([1, 2, 3])}))
            self.assertEqual(code, 0, f"moment {moment}: {err}")
            if "resuming after step" not in told:
                self.assertIn("from the beginning", told)
            with self.subTest(moment=moment, after_step=after_step, later_s=later_s,
                              update=updates[kind]):
                self.assertEqual(p.losses(out), p.losses(undisturbed[kind]))
                self.assertEqual(p.tensors(out, p.SMALL["steps"]), p.tensors(undisturbed[kind], p.SMALL["steps"]))


if __name__ == "__main__":
    unittest.main()
