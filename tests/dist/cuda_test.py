"""On a CUDA device, where there is one: threads and processes with the same bits, and tensors that NCCL brings."""

import json
import re
import time
import unittest

import penstock_process as p
import processes_test as processes


def reason_to_skip():
    code, told, err = p.run("doctor", "--json", "--no-links")
    if code != 0:
        return err
    said = json.loads(told)
    if not any(device.startswith("cuda") for device in said["devices"]):
        return "there is no CUDA device"
    return None if said["backends"]["nccl"]["used"] else "libtorch has no NCCL"


SKIPPED = reason_to_skip()


@unittest.skipIf(SKIPPED, SKIPPED)
class OnOneDevice(p.Case):
    SETTINGS = {"devices": "cuda:0", "steps": 4}

    def start_rank(self, rank, world, port, out, **changes):
        """Each with a host's name of its own, without which NCCL refuses two processes on one device."""
        settings = {**p.SMALL, **self.SETTINGS, "data": self.text, "out": out, **changes}
        variables = {"NCCL_HOSTID": f"host-{rank}", "NCCL_SOCKET_IFNAME": "lo", "NCCL_DEBUG": "INFO",
                     "NCCL_DEBUG_FILE": str(self.folder / f"nccl-{rank}")}
        return p.start("train", *p.flags(settings), env=p.environment_of(rank, world, port, **variables))

    def communicators(self, rank):
        file = self.folder / f"nccl-{rank}"
        return len(re.findall("ncclCommInit.* COMPLETE", file.read_text())) if file.exists() else 0

    def test_through_nccl_with_the_bits_of_threads(self):
        for schedule, stages, layers in (("1f1b", 2, 4), ("1f1b", 4, 4), ("zb-v", 8, 8)):
            with self.subTest(schedule=schedule, stages=stages):
                settings = {"schedule": schedule, "stages": stages, "layers": layers}
                threads = self.must_train(self.folder / f"{schedule}-{stages}-threads", **self.SETTINGS, **settings)
                out = self.folder / f"{schedule}-{stages}-nccl"
                port = p.free_port()
                for process in [self.start_rank(rank, 2, port, out, **settings) for rank in (0, 1)]:
                    _, err = process.communicate(timeout=240)
                    self.assertEqual(process.returncode, 0, err)
                self.assertEqual(p.losses(out), p.losses(threads))
                self.assertEqual(p.tensors(out, 4), p.tensors(threads, 4))
                # One a direction and pair of ranks that have something to say to each other.
                self.assertGreaterEqual(self.communicators(0), 2)
                self.assertEqual(self.communicators(0), self.communicators(1))
                for rank in (0, 1):
                    (self.folder / f"nccl-{rank}").unlink()

    def test_through_the_host_where_nccl_has_no_way(self):
        threads = self.must_train(self.folder / "threads", **self.SETTINGS)
        out = self.must_train(self.folder / "processes", processes=2, **self.SETTINGS)
        self.assertEqual(p.losses(out), p.losses(threads))
        self.assertEqual(p.tensors(out, 4), p.tensors(threads, 4))

    def test_a_dead_process_ends_the_wait_for_its_device(self):
        out = self.folder / "out"
        port = p.free_port()
        started = [self.start_rank(rank, 2, port, out, steps=100000, **{"checkpoint-every": 0}) for rank in (0, 1)]
        p.wait_for_step(started[0], out, 3)
        started[1].kill()
        begun = time.monotonic()
        _, err = started[0].communicate(timeout=120)
        self.assertLess(time.monotonic() - begun, 20)
        started[1].communicate()
        self.assertNotEqual(started[0].returncode, 0)
        self.assertRegex(err, r"penstock: .*process 1 \(rank 1\)")

    def test_resumed_on_the_host(self):
        there = self.must_train(self.folder / "out", **self.SETTINGS)
        self.must_train(there, steps=6, resume=True, devices="cpu")
        self.assertEqual([step for step, _, _ in p.losses(there)], [1, 2, 3, 4, 5, 6])


if __name__ == "__main__":
    unittest.main()
