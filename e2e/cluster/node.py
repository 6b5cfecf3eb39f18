"""What makes the machine a node: containerd, kubelet, kube-proxy, the scheduler and the cluster's DNS.

Writes their settings and gives their command lines; starts nothing. Why a setting is there is a fact that cost time
to find.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.certificates import Authority
from e2e.cluster.network import BRIDGE, NODE, PODS
from e2e.cluster.processes import Argv, Program
from e2e.cluster.shell import ClusterError, run

CNI_PLUGINS = Path("/usr/lib/cni")
PAUSE_IMAGE = "localhost/lorafleet-pause:e2e"
CLEAN = ".clean"
SERVER = f"https://{NODE}:6443"

CONTAINERD = """\
version = 3
root = "{state}/containerd"
state = "{run}/containerd"
oom_score = 0
# Built without their kernel modules, and the transfer plugin of CRI fails when they are half there.
disabled_plugins = [
  "io.containerd.differ.v1.erofs",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.mount-handler.v1.erofs",
  "io.containerd.nri.v1.nri",
]
[grpc]
  address = "{run}/containerd.sock"
[plugins.'io.containerd.internal.v1.opt']
  path = "{state}/opt"
[plugins.'io.containerd.shim.v1.manager']
  socket_dir = "{run}/s"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE runc dies with "failed to update /proc/self/oom_score_adj".
  restrict_oom_score_adj = true
  # Else pods' namespaces lie among those of the host.
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{cni}"]
    conf_dir = "{state}/cni"
    use_internal_loopback = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      Root = "{run}/runc"
      SystemdCgroup = false
"""

COREFILE = """\
cluster.local in-addr.arpa ip6.arpa {{
  bind {node}
  errors
  ready 0.0.0.0:8181
  kubernetes cluster.local in-addr.arpa ip6.arpa {{
    kubeconfig {kubeconfig}
    pods insecure
    ttl 1
  }}
}}
# There is no way out, and "no such name" at once is kinder than a time-out.
. {{
  bind {node}
  template ANY ANY . {{
    rcode NXDOMAIN
  }}
}}
"""

DNS_ROLE = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "lorafleet-e2e:dns"}
rules:
- {apiGroups: [""], resources: [services, pods, namespaces, nodes], verbs: [list, watch, get]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "lorafleet-e2e:dns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "lorafleet-e2e:dns"}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: "lorafleet-e2e:dns"}]
"""


@dataclass(frozen=True)
class Node:
    """One node's name and folders. `group` is the control group its pods live below."""

    name: str
    state: Path
    run: Path
    group: str

    @property
    def socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def pod_logs(self) -> Path:
        return self.state / "pod-logs"

    @property
    def network(self) -> str:
        """The CNI network's name, by which its traces outside our folders are known."""
        return f"lorafleet-{self.name}"

    @property
    def images(self) -> Path:
        """containerd's store: kept when an instance goes down in order, as unpacking takes ten seconds an image."""
        return self.state / "containerd"

    def images_are_clean(self) -> bool:
        return (self.images / CLEAN).exists()

    def forget_containers(self, ctr: Path) -> None:
        """Take all that is left of ended pods out of the store and mark it as fit for the next `up`, if that works."""
        words: Argv = [ctr, "--address", self.socket, "--namespace", "k8s.io"]
        try:
            for what, force in (("tasks", ["--force"]), ("containers", []), ("sandboxes", ["--force"])):
                # The first line is a header, the first word of each other one the name.
                lines = run([*words, what, "list"], timeout=10).splitlines()[1:]
                if names := [line.split()[0] for line in lines if line.strip()]:
                    run([*words, what, "rm", *force, *names], timeout=30)
        except ClusterError:
            return
        (self.images / CLEAN).touch()

    def write(self, authority: Authority, tools: Mapping[str, Path]) -> None:
        """All settings and certificates, before anything starts."""
        pki = authority.folder
        authority.issue("kubelet", f"system:node:{self.name}", ["system:nodes"], [self.name, NODE])
        authority.kubeconfig(pki / "node.kubeconfig", SERVER, f"system:node:{self.name}", ["system:nodes"])
        authority.kubeconfig(pki / "proxy.kubeconfig", SERVER, "system:kube-proxy")
        authority.kubeconfig(pki / "scheduler.kubeconfig", SERVER, "system:kube-scheduler")
        authority.kubeconfig(pki / "dns.kubeconfig", SERVER, "lorafleet-e2e:dns")
        (self.images / CLEAN).unlink(missing_ok=True)
        for folder in (self.run, self.state / "cni", self.pod_logs):
            folder.mkdir(parents=True, exist_ok=True)
        (self.state / "resolv.conf").write_text(f"nameserver {NODE}\n")
        (self.state / "Corefile").write_text(COREFILE.format(node=NODE, kubeconfig=pki / "dns.kubeconfig"))
        (self.state / "containerd.toml").write_text(
            CONTAINERD.format(state=self.state, run=self.run, pause=PAUSE_IMAGE, cni=CNI_PLUGINS, runc=tools["runc"])
        )
        (self.state / "cni/10-bridge.conflist").write_text(json.dumps(self._cni()))
        (self.state / "kubelet.yaml").write_text(yaml.safe_dump(self._kubelet(pki)))
        (self.state / "proxy.yaml").write_text(yaml.safe_dump(self._proxy(pki)))
        (self.state / "scheduler.yaml").write_text(yaml.safe_dump(_scheduler(pki)))

    def containerd(self, tools: Mapping[str, Path], path: str) -> Program:
        # The shim is found on PATH, beside containerd itself.
        found = f"{tools['containerd'].parent}:{path}:/usr/sbin:/sbin"
        argv: Argv = [tools["containerd"], f"--config={self.state / 'containerd.toml'}", "--log-level=warn"]
        return Program("containerd", argv, {"PATH": found})

    def programs(self, tools: Mapping[str, Path]) -> list[Program]:
        scheduler: Argv = [tools["kube-scheduler"], f"--config={self.state / 'scheduler.yaml'}", "--secure-port=0"]
        kubelet: Argv = [
            tools["kubelet"],
            f"--config={self.state / 'kubelet.yaml'}",
            f"--kubeconfig={self.state / 'pki/node.kubeconfig'}",
            f"--root-dir={self.state / 'kubelet'}",
            f"--cert-dir={self.state / 'kubelet/pki'}",
            f"--hostname-override={self.name}",
            f"--node-ip={NODE}",
        ]
        return [
            Program("kubelet", kubelet),
            Program("kube-scheduler", scheduler),
            Program("kube-proxy", [tools["kube-proxy"], f"--config={self.state / 'proxy.yaml'}"]),
            Program("coredns", [tools["coredns"], "-conf", self.state / "Corefile"]),
        ]

    def _cni(self) -> dict[str, Any]:
        bridge = {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "hairpinMode": True,
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": str(PODS)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": str(self.run / "ipam"),
            },
        }
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "1.0.0", "name": self.network, "plugins": [bridge, portmap]}

    def _kubelet(self, pki: Path) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "0.0.0.0",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(pki / "kubelet.crt"),
            "tlsPrivateKeyFile": str(pki / "kubelet.key"),
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "clusterDomain": "cluster.local",
            "clusterDNS": [NODE],
            "resolvConf": str(self.state / "resolv.conf"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.group}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            "podLogsDir": str(self.pod_logs),
            "volumePluginDir": str(self.state / "plugins-exec"),
            "serializeImagePulls": False,
            "kubeAPIQPS": 200,
            "kubeAPIBurst": 400,
            "eventRecordQPS": 0,
            # A full disk of the machine is not what is tested; pods evicted for it would only confuse.
            "evictionHard": {"memory.available": "20Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
        }

    def _proxy(self, pki: Path) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "nftables": {"minSyncPeriod": "0.2s"},
            "clientConnection": {"kubeconfig": str(pki / "proxy.kubeconfig")},
            "clusterCIDR": str(PODS),
            "hostnameOverride": self.name,
            "oomScoreAdj": 0,
            # The limits are the host's, and not writable from a namespace.
            "conntrack": {"maxPerCore": 0, "min": 0},
        }


def _scheduler(pki: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {"kubeconfig": str(pki / "scheduler.kubeconfig"), "qps": 500, "burst": 1000},
    }
