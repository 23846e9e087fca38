"""The scripts of examples/launch, each with the launcher that it is for: the numbers are those of one process."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import unittest

import penstock_process as p
import slow_link

RECIPES = pathlib.Path(__file__).parent.parent.parent / "examples" / "launch"
TORCHRUN = pathlib.Path(sys.executable).with_name("torchrun")
SLURM = [name for name in ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo", "munged") if not shutil.which(name)]
# Recipes say stages and microbatches themselves.
REST = p.flags({name: value for name, value in p.SMALL.items() if name not in ("stages", "microbatches")})


class Recipes(p.Case):
    def setUp(self):
        super().setUp()
        self.out = self.folder / "run"
        self.one = p.losses(self.must_train(self.folder / "one", stages=1, microbatches=4))

    def start(self, recipe, *arguments, before=(), **environment):
        return subprocess.Popen([*before, str(RECIPES / recipe), *map(str, arguments), str(self.text), str(self.out), *REST],
                                env={**os.environ, "PENSTOCK": p.PENSTOCK, "PROCESSES": "2", **environment},
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)

    def must_end_well(self, *started):
        for process in started:
            _, err = process.communicate(timeout=300)
            self.assertEqual(process.returncode, 0, err)
        self.assertEqual(p.losses(self.out), self.one)

    def test_without_arguments_they_say_what_they_take(self):
        for recipe in sorted(RECIPES.glob("*.sh")):
            called = subprocess.run([str(recipe)], capture_output=True, text=True)
            self.assertEqual((called.returncode, called.stdout), (2, ""), recipe)
            self.assertRegex(called.stderr, rf"^usage: .*examples/launch/{recipe.name} .*\n$")

    @unittest.skipUnless(TORCHRUN.exists(), "no torchrun beside this Python")
    def test_torchrun(self):
        self.must_end_well(self.start("torchrun.sh", TORCHRUN=str(TORCHRUN)))

    @unittest.skipUnless(shutil.which("mpirun"), "mpirun is not installed")
    def test_mpirun(self):
        options = "--oversubscribe" + (" --allow-run-as-root" if os.geteuid() == 0 else "")
        self.must_end_well(self.start("mpirun.sh", MASTER_PORT=str(p.free_port()), MPIRUN_OPTIONS=options))

    @unittest.skipIf(slow_link.why_not(), f"needs two network namespaces: {slow_link.why_not()}")
    def test_two_nodes(self):
        with slow_link.SlowLink(1, 1000) as link:
            self.must_end_well(*[self.start("node.sh", node, 2, before=link.at(node), MASTER_ADDR=slow_link.ADDRESSES[0])
                                 for node in (0, 1)])

    @unittest.skipIf(SLURM, f"not installed: {', '.join(SLURM)}")
    @unittest.skipUnless(os.geteuid() == 0, "slurmd wants root")
    def test_slurm(self):
        with Slurm(self.folder) as slurm:
            job = subprocess.run(["sbatch", "--wait", "--ntasks=2", "--time=10", f"--output={self.folder}/job.txt",
                                  str(RECIPES / "slurm.sh"), str(self.text), str(self.out), *REST],
                                 env={**os.environ, **slurm.environment, "PENSTOCK": p.PENSTOCK, "MASTER_PORT": str(p.free_port())},
                                 capture_output=True, text=True, timeout=300)
            told = self.folder / "job.txt"
            self.assertEqual(job.returncode, 0, job.stderr + (told.read_text() if told.exists() else ""))
        self.assertEqual(p.losses(self.out), self.one)


class Slurm:
    """A cluster of this machine alone, with its own key, ports and folders."""

    def __init__(self, folder):
        self.folder = folder / "slurm"
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self.started = []

    def __enter__(self):
        for name in ("state", "spool", "munge"):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        self.folder.parent.chmod(0o755)
        host = socket.gethostname().split(".")[0]
        (self.folder / "slurm.conf").write_text(f"""ClusterName=alone
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={p.free_port()}
SlurmdPort={p.free_port()}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={self.folder}/munge/socket
CredType=cred/munge
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()}
PartitionName=all Nodes={host} Default=YES OverSubscribe=FORCE:4
""")
        try:
            self.run("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.folder}/munge/socket",
                     f"--pid-file={self.folder}/munge/pid", f"--log-file={self.folder}/munge/log", f"--seed-file={self.folder}/munge/seed")
            if not p.comes_true(lambda: (self.folder / "munge" / "socket").exists()):
                raise RuntimeError("munged does not come up")
            self.run("slurmctld", "-D", "-i")
            self.run("slurmd", "-D")
            if not p.comes_true(self.is_idle):
                raise RuntimeError(f"the node does not come up: {self.ask('sinfo', '-N', '-l')}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def run(self, *command):
        with open(self.folder / f"{command[0]}.log", "w") as log:
            self.started.append(subprocess.Popen(command, env={**os.environ, **self.environment}, stdout=log, stderr=log))

    def ask(self, *command):
        return subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True).stdout

    def is_idle(self):
        return self.ask("sinfo", "-h", "-o", "%t").strip() == "idle"

    def __exit__(self, *_):
        for process in reversed(self.started):
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
