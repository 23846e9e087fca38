"""Two processes on two "nodes", that is network namespaces, with a slow link between them that can be cut."""

import os
import time
import unittest

import penstock_process as p
import slow_link

WHY_NOT = slow_link.why_not()


@unittest.skipIf(WHY_NOT, f"needs two network namespaces: {WHY_NOT}")
class Network(p.Case):
    def start_both(self, link, out, **changes):
        settings = {**p.SMALL, "data": self.text, "out": out, "join-timeout": 30}
        settings.update({name.replace("_", "-"): value for name, value in changes.items()})
        started = []
        for rank in (0, 1):
            environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_PORT": "29500",
                           "MASTER_ADDR": slow_link.ADDRESSES[0]}
            started.append(p.start("train", *p.flags(settings), before=link.at(rank), env=environment))
        return started

    def outcomes(self, processes):
        return [(process.communicate(timeout=120)[1], process.returncode) for process in processes]

    def must_end_well(self, processes):
        for err, code in self.outcomes(processes):
            self.assertEqual(code, 0, err)

    def test_the_bits_of_loopback_over_50_ms_and_100_mbit(self):
        alone = self.must_train(self.folder / "alone")
        with slow_link.SlowLink(25, 100) as link:
            self.must_end_well(self.start_both(link, self.folder / "far"))
        self.assertEqual(p.losses(self.folder / "far"), p.losses(alone))
        self.assertEqual(p.tensors(self.folder / "far", 12), p.tensors(alone, 12))

    def test_a_link_that_is_cut_for_five_seconds(self):
        alone = self.must_train(self.folder / "alone")
        out = self.folder / "far"
        with slow_link.SlowLink(25, 100) as link:
            processes = self.start_both(link, out)
            p.wait_for_step(processes[0], out, 3)
            link.cut.set()
            time.sleep(5)
            link.cut.clear()
            self.must_end_well(processes)
        self.assertEqual(p.losses(out), p.losses(alone))

    def test_a_link_that_stays_cut_ends_both_and_names_the_lost_one(self):
        out = self.folder / "far"
        with slow_link.SlowLink(25, 100) as link:
            processes = self.start_both(link, out, peer_timeout=2)
            p.wait_for_step(processes[0], out, 3)
            link.cut.set()
            for rank, (err, code) in enumerate(self.outcomes(processes)):
                self.assertEqual(code, 1, err)
                self.assertRegex(err, rf"process {1 - rank} \(rank {1 - rank}\) is lost: it has said nothing for 2.0 s")
                self.assertEqual(len([line for line in err.splitlines() if line.startswith("penstock: ")]), 1, err)


if __name__ == "__main__":
    unittest.main()
