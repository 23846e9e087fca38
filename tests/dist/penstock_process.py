"""Starts the penstock program and reads what it leaves behind."""

import atexit
import json
import os
import pathlib
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

PENSTOCK = os.environ["PENSTOCK"]
# Empty: each start is one of the program itself.
FORKS = os.environ.get("PENSTOCK_FORKS", "")

# A network that trains in a moment: what is tested here is the run around it.
SMALL = {
    "model": "gpt", "layers": 4, "width": 16, "heads": 2, "context": 16, "batch": 6, "microbatches": 4,
    "stages": 2, "threads-per-rank": 1, "steps": 12, "checkpoint-every": 2, "eval-every": 5,
    "eval-samples": 8, "warmup": 2, "dropout": 0.1, "seed": 7,
}


def flags(settings):
    listed = []
    for name, value in settings.items():
        if value is True:
            listed.append(f"--{name}")
        elif isinstance(value, (list, tuple)):
            listed += [f"--{name}", *map(str, value)]
        elif value is not False and value is not None:
            listed += [f"--{name}", str(value)]
    return listed


def served():
    """The socket of the process that is forked for each start: it has loaded libtorch already (penstock_forks.cpp)."""
    if not hasattr(served, "socket"):
        served.socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        served.process = subprocess.Popen([FORKS, "--serve", str(other.fileno())], pass_fds=[other.fileno()], stdin=subprocess.DEVNULL)
        other.close()
        atexit.register(served.process.wait)
        atexit.register(served.socket.close)
    return served.socket


class Forked:
    """A penstock that was forked in place of started, a child of the process that forks: what these tests use of a Popen."""

    def __init__(self, arguments, cwd=None, env=None):
        self.args = arguments
        self.returncode = None
        self._readers = []
        environment = os.environ if env is None else env
        texts = [str(cwd or os.getcwd()), str(len(arguments)), *arguments, *(f"{name}={value}" for name, value in environment.items())]
        out, out_write = os.pipe()
        err, err_write = os.pipe()
        self._status, status_write = os.pipe()
        given = [os.open(os.devnull, os.O_RDONLY), out_write, err_write, status_write]
        socket.send_fds(served(), [b"".join(os.fsencode(text) + b"\0" for text in texts)], given)
        for end in given:
            os.close(end)
        self.stdout = open(out, encoding="utf-8", errors="surrogateescape")
        self.stderr = open(err, encoding="utf-8", errors="surrogateescape")
        (self.pid,) = struct.unpack("i", os.read(self._status, 4))
        if self.pid < 0:
            raise OSError("no fork")

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = os.waitstatus_to_exitcode(struct.unpack("i", os.read(self._status, 4))[0])
            os.close(self._status)
        return self.returncode

    def poll(self):
        try:
            return self.wait(timeout=0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout=None):
        """What it still prints and has printed unread; after a timeout it may be called again."""
        end = None if timeout is None else time.monotonic() + timeout

        def left():
            return None if end is None else max(0.0, end - time.monotonic())

        if not self._readers:
            self._readers = [Reader(self.stdout), Reader(self.stderr)]
        for reader in self._readers:
            reader.join(left())
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(left())
        return tuple(reader.text for reader in self._readers)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stdout.close()
        self.stderr.close()
        self.wait()


class Reader(threading.Thread):
    """Reads a stream to its end, and closes it."""

    def __init__(self, stream):
        super().__init__(daemon=True)
        self.text = ""
        self._stream = stream
        self.start()

    def run(self):
        with self._stream:
            self.text = self._stream.read()


def start(*arguments, before=(), **popen):
    """`before`: a program that runs penstock as its own command."""
    arguments = [PENSTOCK, *map(str, arguments)]
    if FORKS and not before and set(popen) <= {"cwd", "env"}:
        return Forked(arguments, **popen)
    return subprocess.Popen([*before, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            stdin=subprocess.DEVNULL, text=True, errors="surrogateescape", **popen)


def run(*arguments, **popen):
    """Exit code, standard output, standard error."""
    process = start(*arguments, **popen)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def metrics(out):
    with open(out / "metrics.jsonl") as lines:
        return [json.loads(line) for line in lines]


def losses(out):
    return [(line["step"], line["loss"], line["grad_norm"]) for line in metrics(out)]


def tensors(out, step):
    """Every tensor of a checkpoint, as name -> raw bytes, however it is spread over files."""
    found = {}
    for file in sorted((out / "checkpoints" / f"step-{step:08d}").glob("*.safetensors")):
        content = file.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        for name, entry in json.loads(content[8:8 + length]).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                found[name] = content[8 + length + begin:8 + length + end]
    return found


def wait_for_step(process, out, step):
    """Until the metrics have so many lines, or the process has ended."""
    file = out / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if step <= 0 or file.exists() and file.read_bytes().count(b"\n") >= step:
            return
        time.sleep(0.001)


def comes_true(holds, timeout_s=120):
    """Asks until it is so; whether it was before the time is over."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.005)
    return False


# Below those that the kernel gives to connections: seconds may pass until a launcher listens there, and a port that the
# kernel has just given away is soon given to somebody else.
PORTS = range(20_000, 32_000)


def free_port():
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as listening:
            try:
                listening.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free")


def is_listening(port):
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


LISTENING, CONNECTED = "0A", "01"


def connections(port, state):
    """How many sockets of this machine have that local port and state; nobody is called for it."""
    local = f":{port:04X}"
    lines = [line for file in ("tcp", "tcp6") for line in pathlib.Path("/proc/net", file).read_text().splitlines()[1:]]
    return sum(fields[1].endswith(local) and fields[3] == state for fields in map(str.split, lines))


def environment_of(rank, world, port, **more):
    return {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), **more}


def stat_of(process):
    """State, parent and group of a process, or nothing where it is gone."""
    try:
        state, parent, group = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[:3]
        return state, int(parent), int(group)
    except OSError:
        return None


def processes():
    found = {int(folder.name): stat_of(folder.name) for folder in pathlib.Path("/proc").glob("[0-9]*")}
    return {process: stat for process, stat in found.items() if stat}


def descendants_of(process):
    found = [process]
    for ancestor in found:
        found += [child for child, (_, parent, _) in processes().items() if parent == ancestor]
    return found[1:]


def group_of(leader):
    return [process for process, (_, _, group) in processes().items() if group == leader]


def workers_of(launcher):
    """The ranks of a launcher, by number, as process ids."""
    found = {}
    for process in descendants_of(launcher):
        try:
            variables = pathlib.Path(f"/proc/{process}/environ").read_text().split("\0")
            environment = dict(pair.split("=", 1) for pair in variables if "=" in pair)
            found[int(environment.get("RANK") or environment["OMPI_COMM_WORLD_RANK"])] = process
        except (OSError, KeyError, ValueError):
            continue  # gone meanwhile, or another child
    return found


def is_there(process):
    stat = stat_of(process)
    return stat is not None and stat[0] != "Z"


class Case(unittest.TestCase):
    """A fresh folder for each test, with a text to learn from."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        draw = random.Random(5)
        self.text = self.folder / "text.txt"
        self.text.write_text(" ".join(draw.choice(["pipeline", "stage", "bubble", "rank"]) for _ in range(4000)))

    def train(self, out, **changes):
        settings = {**SMALL, "data": self.text, "out": out}
        settings.update({name.replace("_", "-"): value for name, value in changes.items()})
        return run("train", *flags(settings))

    def must_train(self, out, **changes):
        code, _, err = self.train(out, **changes)
        self.assertEqual(code, 0, err)
        return out
