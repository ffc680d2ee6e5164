"""Network namespaces of Linux: hosts of one's own on one machine, on a network as slow as one likes.

Each host is a namespace with an address on ``eth0``; a further one holds the bridge that joins them, so nothing outside
is touched, and deleting them removes all. What leaves a host is shaped by a token bucket (``tc tbf``), and so is what
reaches it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

INTERFACE = "eth0"
BURST = "16kb"
"""What may leave at once: little, so that small messages are as slow as large ones are."""
QUEUE = "4s"
"""How long a packet may wait before it is dropped: so long that none is. Who sends is slowed by TCP."""
HEADERS = 66
"""Bytes of every packet that are not payload: Ethernet 14, IPv4 20, TCP 20 and its timestamps 12."""
SEGMENT = 1448
"""Payload of a full packet."""


class ForbiddenError(RuntimeError):
    """This machine does not let us make networks."""


def address(host: int) -> str:
    """Of a host, counted from 0."""
    return f"10.77.0.{host + 1}"


@contextmanager
def hosts(count: int, rate: str | None = None) -> Iterator[list[str]]:
    """So many joined namespaces, by name, until the end of the block; each sends and gets at most ``rate``, as tc
    writes it.

    Raises ForbiddenError where the machine does not allow it.
    """
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"):
        raise ForbiddenError("network namespaces need Linux, root, and the commands ip and tc of iproute2")
    middle, *ends = (f"twoclocks-{os.getpid()}-{what}" for what in ("bridge", *range(count)))
    with ExitStack() as cleanup:
        try:
            for name in (middle, *ends):
                cleanup.callback(subprocess.run, ["ip", "netns", "delete", name], capture_output=True, timeout=10)
                _do("ip", "netns", "add", name)
            _join(middle, ends)
            for number, end in enumerate(ends if rate is not None else []):
                for where, device in ((end, INTERFACE), (middle, f"port{number}")):  # what it sends, what it gets
                    shape = ("tbf", "rate", str(rate), "burst", BURST, "latency", QUEUE)
                    _do("tc", "-n", where, "qdisc", "add", "dev", device, "root", *shape)
        except subprocess.CalledProcessError as error:
            raise ForbiddenError(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from None
        yield ends


def _join(middle: str, ends: list[str]) -> None:
    _do("ip", "-n", middle, "link", "add", "bridge", "type", "bridge")
    _do("ip", "-n", middle, "link", "set", "bridge", "up")
    for number, end in enumerate(ends):
        port = f"port{number}"
        _do("ip", "-n", end, "link", "add", INTERFACE, "type", "veth", "peer", "name", port, "netns", middle)
        _do("ip", "-n", middle, "link", "set", port, "master", "bridge", "up")
        _do("ip", "-n", end, "address", "add", f"{address(number)}/24", "dev", INTERFACE)
        for interface in ("lo", INTERFACE):
            _do("ip", "-n", end, "link", "set", interface, "up")


def _do(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=10)


def sent() -> float:
    """Bytes of payload that this namespace has sent, by the kernel's counters.

    Of what the kernel counts on the interface, headers are taken off, and segments that TCP sent again.
    """
    lines = Path("/proc/self/net/dev").read_text().splitlines()
    numbers = next(line for line in lines if f"{INTERFACE}:" in line).split(":")[1].split()
    names, counts = (
        line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines() if line.startswith("Tcp:")
    )
    again = int(counts[names.index("RetransSegs")])
    return float(int(numbers[8]) - HEADERS * int(numbers[9]) - SEGMENT * again)
