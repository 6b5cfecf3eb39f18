"""A network namespace without an uplink, so that nothing in it can leave the machine or clash with another.

One veth pair joins it to the host, with link-local addresses and no route behind them: it carries `kubectl` from a
normal shell to the API server and nothing else. A forwarding process on a loopback port would do the same, but could
die alone, and its address would mean something else inside. The pair goes with the namespace, and one kubeconfig is
good on both sides.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.shell import ClusterError, run, succeeds

NETNS = Path("/run/netns")
BRIDGE = "cni0"
PODS = ipaddress.ip_network("10.88.0.0/16")
SERVICES = ipaddress.ip_network("10.96.0.0/16")
NODE = str(PODS[1])
# One /30 per instance. Link-local addresses are never routed onwards, whatever the host forwards.
LINKS = ipaddress.ip_network("169.254.88.0/24")


@dataclass(frozen=True)
class Link:
    """The two ends of the veth pair."""

    host: str
    inside: str


class Network:
    """The namespace of one instance and how to get into it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = NETNS / name
        # An interface's name ends at 15 characters.
        self.device = f"lf-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

    def enter(self) -> list[str]:
        # Not `ip netns exec`: that mounts a fresh /sys, and the control groups are gone.
        return ["nsenter", f"--net={self.path}"]

    def exists(self) -> bool:
        return self.path.exists()

    def create(self, link: Link) -> None:
        run(["ip", "netns", "add", self.name])
        run(["ip", "link", "add", self.device, "type", "veth", "peer", "name", "host0", "netns", self.name])
        run(["ip", "address", "add", f"{link.host}/30", "dev", self.device])
        run(["ip", "link", "set", self.device, "up"])
        commands = [
            "link set lo up",
            f"address add {link.inside}/30 dev host0",
            "link set host0 up",
            f"link add {BRIDGE} type bridge",
            f"address add {NODE}/{PODS.prefixlen} dev {BRIDGE}",
            f"link set {BRIDGE} up",
            # Without a route a packet to a service's address never gets as far as kube-proxy's rules. There is no
            # default route on purpose: what tries to leave fails at once instead of waiting for an answer.
            f"route add {SERVICES} dev {BRIDGE}",
        ]
        run(["ip", "-n", self.name, "-batch", "-"], stdin="\n".join(commands) + "\n")
        run([*self.enter(), "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])

    def remove(self) -> None:
        """Both ends of the pair and all addresses go with the namespace."""
        if self.exists():
            run(["ip", "netns", "delete", self.name])
        if succeeds(["ip", "link", "show", self.device]):
            run(["ip", "link", "delete", self.device])
        # The first `ip netns add` of a machine makes this folder a mount of its own, and nothing takes it back.
        if NETNS.is_dir() and not any(NETNS.iterdir()):
            while NETNS.is_mount() or _mounted(NETNS):
                run(["umount", NETNS])
            NETNS.rmdir()


def free_link() -> Link:
    """The first pair of addresses that no interface of the host has."""
    interfaces = json.loads(run(["ip", "-json", "address"]))
    used = {address["local"] for interface in interfaces for address in interface["addr_info"]}
    for net in LINKS.subnets(new_prefix=30):
        if str(net[1]) not in used:
            return Link(host=str(net[1]), inside=str(net[2]))
    raise ClusterError(f"all of {LINKS} is taken; bring an instance down with `make cluster-down`")


def _mounted(path: Path) -> bool:
    # A bind mount onto itself has the device of its parent, which is all that is_mount() compares.
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())
