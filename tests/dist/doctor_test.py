"""What penstock doctor says: of the machine, of a port, and of the links that it measures."""

import json
import os
import socket
import subprocess
import unittest

import penstock_process as p
import processes_test as processes


class Doctor(p.Case):
    def told(self, *arguments, **popen):
        code, told, err = p.run("doctor", *arguments, **popen)
        self.assertEqual(code, 0, err)
        self.assertEqual(err, "")
        return told

    def refused(self, expected, *arguments, **popen):
        code, _, err = p.run("doctor", *arguments, **popen)
        self.assertEqual(code, 2, err)
        self.assertRegex(err, expected)
        self.assertEqual(len(err.splitlines()), 1, err)

    def test_of_the_machine(self):
        said = json.loads(self.told("--json", "--no-links"))
        self.assertEqual(said["cores"], os.cpu_count())
        self.assertEqual(said["usable_cores"], len(os.sched_getaffinity(0)))
        self.assertEqual(said["memory_bytes"], os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        self.assertIn("cpu", said["devices"])
        self.assertEqual(set(said["backends"]), {"gloo", "nccl", "mpi"})
        self.assertEqual(said["links"], [])
        for word in ("penstock ", "libtorch ", "compiler ", "gloo ", "memory "):
            self.assertIn(word, self.told("--no-links"))

    def test_the_links_of_two_local_processes_fit_into_a_cost_file(self):
        said = json.loads(self.told("--json"))
        self.assertEqual([(link["from"], link["to"]) for link in said["links"]], [(0, 1), (1, 0)])
        self.assertEqual([sample["bytes"] for sample in said["samples"]], [8 ** power for power in range(1, 9)])
        for link in said["links"]:
            self.assertGreater(link["bandwidth_bytes_per_ms"], 0)
            self.assertGreater(link["latency_ms"], 0)
        stage = {"forward_ms": 1, "input_backward_ms": 1, "weight_backward_ms": 1, "boundary_bytes": 1 << 20}
        cost, schedule = self.folder / "cost.json", self.folder / "schedule.csv"
        cost.write_text(json.dumps({"stages": [stage, stage], "links": said["links"]}))
        schedule.write_text("0F0,0B0\n1F0,1B0\n")
        code, told, err = p.run("simulate", schedule, "--cost", cost, "--json")
        self.assertEqual(code, 0, err)
        # Two stages of 3 ms, and the time on the link.
        self.assertGreater(json.loads(told)["makespan_ms"], 6)

    def test_between_the_ranks_of_a_launcher(self):
        port = p.free_port()
        started = [p.start("doctor", "--json", env=p.environment_of(rank, 3, port)) for rank in range(3)]
        outcomes = [(*process.communicate(timeout=120), process.returncode) for process in started]
        self.assertEqual([code for _, _, code in outcomes], [0, 0, 0], outcomes)
        self.assertEqual([told == "" for told, _, _ in outcomes], [False, True, True])
        pairs = {(link["from"], link["to"]) for link in json.loads(outcomes[0][0])["links"]}
        self.assertEqual(pairs, {(a, b) for a in range(3) for b in range(3) if a != b})

    @unittest.skipUnless(processes.TORCHRUN.exists(), "no torchrun beside this Python")
    def test_under_torchrun(self):
        done = subprocess.run([processes.TORCHRUN, "--nproc-per-node", "2", "--master-port", str(p.free_port()),
                               "--no-python", p.PENSTOCK, "doctor"], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("links between 2 ranks", done.stdout)
        self.assertIn("16 MiB", done.stdout)

    def test_a_place_to_meet(self):
        port = p.free_port()
        told = self.told("--no-links", "--master-addr", "127.0.0.1", "--master-port", port)
        self.assertIn(f"port {port} of 127.0.0.1 is free", told)
        variables = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.assertIn(f"port {port} of 127.0.0.1 is free", self.told("--no-links", env=variables))
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            taken = listening.getsockname()[1]
            self.refused(f"port {taken} of 127.0.0.1: Address already in use", "--master-port", taken)
        self.refused("no.such.host", "--master-addr", "no.such.host.invalid", "--master-port", port)
        self.refused("without a port", "--master-addr", "127.0.0.1")
        self.refused("MASTER_PORT is 'x'", env={**os.environ, "MASTER_PORT": "x"})
        self.refused("Cannot assign requested address", "--master-addr", "192.0.2.7", "--master-port", port)
        self.refused("processes", "--processes", 1)
        self.refused("WORLD_SIZE", env={**os.environ, "RANK": "0"})

    def test_a_rank_that_never_comes(self):
        code, _, err = p.run("doctor", "--join-timeout", 1, env=p.environment_of(0, 2, p.free_port()))
        self.assertEqual(code, 1)
        self.assertRegex(err, r"^penstock: no process 1 \(rank 1\) within 1 s")


if __name__ == "__main__":
    unittest.main()
