"""Two network namespaces, as two nodes, with a link between them that is slow and can be cut.

A kernel's own netem is not everywhere: the link is two TUN devices and a process that hands every packet on when its
time has come. Needs root, ip of iproute2 and /dev/net/tun, and leaves nothing behind however it ends.
"""

import collections
import fcntl
import multiprocessing
import os
import selectors
import shutil
import struct
import subprocess
import time

ADDRESSES = ("10.99.0.1", "10.99.0.2")
# Fewer packets for the process between; as much as jumbo frames.
MTU = 9000
MOST_WAITING = 1000  # packets; more are dropped, as by a router


def why_not():
    """Why there can be no such link here; nothing where there can."""
    if os.geteuid() != 0:
        return "not root"
    for program in ("ip", "unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"no {program}"
    if not os.path.exists("/dev/net/tun"):
        return "no /dev/net/tun"
    allowed = subprocess.run(["unshare", "--net", "true"], capture_output=True)
    if allowed.returncode != 0:
        return "no network namespaces are allowed"
    try:
        os.close(tun_device("penstock-try"))
    except OSError as error:
        return f"no TUN device: {error.strerror}"
    return None


def tun_device(name):
    """A new TUN device, as the descriptor that reads and writes its packets. It goes with the descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    set_interface, tun, no_packet_information = 0x400454CA, 0x0001, 0x1000
    try:
        fcntl.ioctl(descriptor, set_interface, struct.pack("16sH22x", name.encode(), tun | no_packet_information))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Direction:
    """Packets from one device to the other: sent one after the other at the rate, then on their way for the delay."""

    def __init__(self, source, target, delay_s, bytes_per_s):
        self.source, self.target = source, target
        self.delay_s, self.bytes_per_s = delay_s, bytes_per_s
        self.free_at = 0.0
        self.waiting = collections.deque()

    def take(self, cut):
        while True:
            try:
                packet = os.read(self.source, 1 << 16)
            except BlockingIOError:
                return
            if cut or len(self.waiting) >= MOST_WAITING:
                continue
            self.free_at = max(self.free_at, time.monotonic()) + len(packet) / self.bytes_per_s
            self.waiting.append((self.free_at + self.delay_s, packet))

    def hand_on(self, cut):
        while self.waiting and self.waiting[0][0] <= time.monotonic():
            _, packet = self.waiting.popleft()
            if not cut:
                try:
                    os.write(self.target, packet)
                except OSError:
                    pass  # the device is down or full: a lost packet


def relay(devices, delay_s, bytes_per_s, cut, stop):
    directions = [Direction(*ends, delay_s, bytes_per_s) for ends in (devices, devices[::-1])]
    selector = selectors.DefaultSelector()
    for direction in directions:
        selector.register(direction.source, selectors.EVENT_READ, direction)
    while not stop.is_set() and os.getppid() != 1:
        due = [direction.waiting[0][0] for direction in directions if direction.waiting]
        for key, _ in selector.select(max(0.0, min([*due, time.monotonic() + 0.2]) - time.monotonic())):
            key.data.take(cut.is_set())
        for direction in directions:
            direction.hand_on(cut.is_set())


class SlowLink:
    """`with SlowLink(25, 100) as link`: commands run at one of its two ends with `link.at(0) + command`."""

    def __init__(self, delay_ms, mbit_per_s):
        self.delay_s, self.bytes_per_s = delay_ms / 1000, mbit_per_s * 1e6 / 8
        self.cut, self.stop = multiprocessing.Event(), multiprocessing.Event()
        self.nodes, self.devices, self.process = [], [], None

    def __enter__(self):
        try:
            for end, address in enumerate(ADDRESSES):
                # A namespace lives as long as somebody is in it: until the pipe to cat closes.
                node = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo in; exec cat"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
                self.nodes.append(node)
                node.stdout.readline()
                # Also two links at a time have devices of their own.
                name = f"ps{os.getpid() % 1000000}-{end}"
                self.devices.append(tun_device(name))
                self.ip("link", "set", name, "netns", str(self.nodes[end].pid))
                for words in (("link", "set", "lo", "up"), ("link", "set", name, "mtu", str(MTU), "up"),
                              ("addr", "add", address, "peer", ADDRESSES[1 - end], "dev", name)):
                    self.ip(*words, before=self.at(end))
            self.process = multiprocessing.get_context("fork").Process(
                target=relay, args=(self.devices, self.delay_s, self.bytes_per_s, self.cut, self.stop), daemon=True)
            self.process.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def at(self, end):
        return ["nsenter", f"--net=/proc/{self.nodes[end].pid}/ns/net"]

    @staticmethod
    def ip(*words, before=()):
        subprocess.run([*before, "ip", *words], check=True, capture_output=True)

    def __exit__(self, *_):
        self.stop.set()
        if self.process is not None:
            self.process.join()
        for device in self.devices:
            os.close(device)
        for node in self.nodes:
            node.stdin.close()
            node.wait()
            node.stdout.close()
