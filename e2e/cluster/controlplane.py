"""etcd, the API server and the controllers: their command lines and certificates. Starts nothing."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.certificates import Authority
from e2e.cluster.network import NODE, SERVICES, Link
from e2e.cluster.processes import Argv, Program

MASTERS = ("system:masters",)
# Controllers which would act on Pods whose nodes do not exist, and scale tests make thousands of those.
NODE_CONTROLLERS = ("pod-garbage-collector-controller", "node-lifecycle-controller", "taint-eviction-controller")


@dataclass(frozen=True)
class Place:
    """Where the control plane listens, and under which address it is known to whom."""

    bind: str
    api: int
    etcd: int
    peer: int
    host: str
    advertise: str | None

    @property
    def server(self) -> str:
        """The URL of the API server for everyone on this machine."""
        return f"https://{self.host}:{self.api}"


def inside(link: Link) -> Place:
    """In a namespace of its own: the usual ports."""
    return Place(bind="0.0.0.0", api=6443, etcd=2379, peer=2380, host=link.inside, advertise=NODE)


def on_loopback() -> Place:
    """In the host's network, where only free ports of the loopback address do."""
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        ports = []
        for each in (one, two, three):
            each.bind(("127.0.0.1", 0))
            ports.append(each.getsockname()[1])
    return Place("127.0.0.1", ports[0], ports[1], ports[2], host="127.0.0.1", advertise=None)


def write_certificates(folder: Path, place: Place, name: str) -> Authority:
    authority = Authority(folder)
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names += ["kubernetes.default.svc.cluster.local", "127.0.0.1", NODE, str(SERVICES[1]), place.host]
    authority.issue("apiserver", "kube-apiserver", hosts=sorted(set(names)))
    authority.issue("etcd", "etcd", hosts=["localhost", "127.0.0.1"])
    authority.issue("kubelet-client", "kube-apiserver-kubelet-client", MASTERS)
    authority.signing_key("service-account")
    authority.kubeconfig(folder / "admin.kubeconfig", place.server, "admin", MASTERS, name)
    authority.kubeconfig(folder / "controllers.kubeconfig", place.server, "system:kube-controller-manager")
    return authority


def programs(tools: Mapping[str, Path], state: Path, place: Place, *, with_node: bool) -> list[Program]:
    pki = state / "pki"
    etcd_url, peer_url = f"https://127.0.0.1:{place.etcd}", f"https://127.0.0.1:{place.peer}"
    etcd: Argv = [
        tools["etcd"],
        f"--data-dir={state / 'etcd'}",
        f"--listen-client-urls={etcd_url}",
        f"--advertise-client-urls={etcd_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        *_tls("", pki),
        *_tls("peer-", pki),
        # Everything is made anew by each `up`, so nothing need survive a power cut.
        "--unsafe-no-fsync",
        "--quota-backend-bytes=4294967296",
        "--log-level=warn",
    ]
    apiserver: Argv = [
        tools["kube-apiserver"],
        f"--etcd-servers={etcd_url}",
        f"--etcd-cafile={pki / 'ca.crt'}",
        f"--etcd-certfile={pki / 'etcd.crt'}",
        f"--etcd-keyfile={pki / 'etcd.key'}",
        f"--bind-address={place.bind}",
        f"--secure-port={place.api}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--service-cluster-ip-range={SERVICES}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'kubelet-client.key'}",
        # The node's name resolves nowhere, and `kubectl logs` would fail on it.
        "--kubelet-preferred-address-types=InternalIP",
        "--max-requests-inflight=2000",
        "--max-mutating-requests-inflight=1000",
        "--profiling=false",
    ]
    if place.advertise:
        apiserver += [f"--advertise-address={place.advertise}"]
    else:
        # A loopback address may not be an endpoint of the `kubernetes` service.
        apiserver += ["--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none"]
    controllers: Argv = [
        tools["kube-controller-manager"],
        f"--kubeconfig={pki / 'controllers.kubeconfig'}",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki / 'service-account.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        f"--controllers={','.join(['*', *(() if with_node else (f'-{each}' for each in NODE_CONTROLLERS))])}",
        "--leader-elect=false",
        "--secure-port=0",
        # Its default is a folder of the machine's, which it would create.
        f"--flex-volume-plugin-dir={state / 'plugins-exec'}",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--profiling=false",
    ]
    return [
        Program("etcd", etcd),
        Program("kube-apiserver", apiserver),
        Program("kube-controller-manager", controllers),
    ]


def _tls(prefix: str, pki: Path) -> list[str]:
    return [
        f"--{prefix}cert-file={pki / 'etcd.crt'}",
        f"--{prefix}key-file={pki / 'etcd.key'}",
        f"--{prefix}trusted-ca-file={pki / 'ca.crt'}",
        f"--{prefix}client-cert-auth",
    ]
