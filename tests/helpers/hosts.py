"""Two hosts in one: network namespaces joined by a cable, each with a name and an address of its own (root, iproute2).

A name is a UTS namespace's, so that what ranks say of their host can be told apart.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers.launches import Launch, start_command

MISSING = os.geteuid() != 0 or not all(shutil.which(tool) for tool in ("ip", "unshare"))
REASON = "needs root, iproute2 and util-linux"


@dataclass(frozen=True)
class Host:
    """One of the two."""

    name: str
    address: str
    interface: str

    def start(self, command: Sequence[str], environment: dict[str, str], log: Path) -> Launch:
        """Runs `command` on this host."""
        inside = ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"']
        own = {"GLOO_SOCKET_IFNAME": self.interface, "NCCL_SOCKET_IFNAME": self.interface}
        return start_command([*inside, self.name, *command], log, environment | own)

    def unplug(self) -> None:
        """Cuts the cable at this end."""
        _ip("-n", self.name, "link", "set", self.interface, "down")


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Both, with the cable plugged in; nothing of them is left afterwards."""
    mark = f"{os.getpid() % 10_000}"
    hosts = tuple(Host(f"rlpt{mark}h{i}", f"10.77.{int(mark) % 250}.{i + 1}", f"rv{mark}x{i}") for i in range(2))
    try:
        for host in hosts:
            _ip("netns", "add", host.name)
        ends = [(host.interface, host.name) for host in hosts]
        (one, first), (other, second) = ends
        _ip("link", "add", one, "netns", first, "type", "veth", "peer", "name", other, "netns", second)
        for host in hosts:
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.interface)
            _ip("-n", host.name, "link", "set", host.interface, "up")
            _ip("-n", host.name, "link", "set", "lo", "up")
        yield hosts
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host.name], check=False, stderr=subprocess.DEVNULL)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
