"""Proof that a cluster is one: pods, services, names, exec, logs, jobs, volumes, and that nothing is left behind."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from e2e.cluster import binaries, images, paths
from e2e.cluster.network import Network
from e2e.cluster.processes import CGROUPS
from e2e.cluster.seam import Cluster, open_cluster
from e2e.cluster.shell import ClusterError, run, say, step

NAMESPACE = "lorafleet-check"
_SECURITY = "{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}"
_PODS = """\
apiVersion: v1
kind: Pod
metadata: {{name: server, labels: {{app: server}}}}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {{runAsNonRoot: true, runAsUser: 65533}}
  containers:
  - name: server
    image: {image}
    command: [python3, -u, -m, http.server, "8000", --directory, /data]
    securityContext: {security}
    readinessProbe: {{httpGet: {{path: /, port: 8000}}, periodSeconds: 1}}
    volumeMounts: [{{name: data, mountPath: /data, readOnly: true}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: data, readOnly: true}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: server}}
spec: {{selector: {{app: server}}, ports: [{{port: 80, targetPort: 8000}}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {{name: writer}}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      securityContext: {{runAsNonRoot: true, runAsUser: 65532}}
      containers:
      - name: writer
        image: {image}
        command: [python3, -c]
        args: ["{script}"]
        securityContext: {security}
        volumeMounts: [{{name: data, mountPath: /data}}, {{name: small, mountPath: /small}}]
      volumes:
      - {{name: data, persistentVolumeClaim: {{claimName: data}}}}
      - {{name: small, persistentVolumeClaim: {{claimName: small}}}}
"""
# What a full disk answers goes to the termination message, as the project's own jobs report.
_WRITER = (
    "import errno; open('/data/hello','w').write('hello')\\n"
    "try: open('/small/big','wb').write(bytes(2**21))\\n"
    "except OSError as e: open('/dev/termination-log','w').write(errno.errorcode[e.errno])\\n"
)


def check(name: str) -> None:
    """Bring the cluster up if it is not, prove it, and take it down if it was not there before.

    The folders and settings that all nodes share look left behind while another node is up.
    """
    before = traces(name)
    cluster = open_cluster(name)
    was_there = bool(cluster.status())
    cluster.up()
    try:
        prove(cluster)
    finally:
        if not was_there:
            with step("down"):
                cluster.down()
    if not was_there:
        after = traces(name)
        left = {what: sorted(after[what] - before[what]) for what in after if after[what] - before[what]}
        if left:
            raise ClusterError(f"down left behind: {json.dumps(left, indent=2)}")
        say("  ✓ nothing is left behind")


def prove(cluster: Cluster) -> None:
    kubectl = [str(binaries.kubectl()), f"--kubeconfig={cluster.kubeconfig()}", f"--namespace={NAMESPACE}"]
    cluster.load_image(images.build("engine"))
    with step("volumes are bound, pods run as nobody in particular"):
        cluster.make_volume(NAMESPACE, "data")
        cluster.make_volume(NAMESPACE, "small", "1Mi")
        pods = _PODS.format(image=images.NAMES["engine"], security=_SECURITY, script=_WRITER)
        run([*kubectl, "apply", "-f", "-"], stdin=pods)
        run([*kubectl, "wait", "--for=condition=Complete", "job/writer", "--timeout=90s"])
        run([*kubectl, "wait", "--for=condition=Ready", "pod/server", "--timeout=90s"])
    with step("a volume with a size is full where it ends"):
        path = "{.items[0].status.containerStatuses[0].state.terminated.message}"
        _expect("ENOSPC", run([*kubectl, "get", "pods", "-l", "job-name=writer", "-o", f"jsonpath={path}"]))
    with step("a service answers from outside a pod, and by name inside"):
        address = run([*kubectl, "get", "service", "server", "-o", "jsonpath={.spec.clusterIP}"])
        _expect("hello", run([*cluster.enter(), "curl", "-sS", "--max-time", "5", f"http://{address}/hello"]))
        fetch = "import urllib.request as r; print(r.urlopen('http://server.{}/hello', timeout=5).read())"
        inside = [*kubectl, "exec", "server", "--", "python3", "-c"]
        for host in (NAMESPACE, f"{NAMESPACE}.svc", f"{NAMESPACE}.svc.cluster.local"):
            _expect("hello", run([*inside, fetch.format(host)]))
    with step("what tries to leave fails at once"):
        leave = "import socket\ntry: socket.create_connection(('192.0.2.1', 80), 3)\nexcept OSError as e: print(e)"
        _expect("unreachable", run([*inside, leave]))
    with step("logs and port-forward"):
        _expect("GET /hello", run([*kubectl, "logs", "server"]))
        _forward(kubectl)
    run([*kubectl, "delete", "namespace", NAMESPACE, "--wait=false"])


def _forward(kubectl: list[str]) -> None:
    forward = subprocess.Popen([*kubectl, "port-forward", "pod/server", ":8000"], stdout=subprocess.PIPE, text=True)
    try:
        assert forward.stdout
        port = forward.stdout.readline().split("127.0.0.1:")[1].split()[0]
        _expect("hello", run(["curl", "-sS", "--max-time", "5", f"http://127.0.0.1:{port}/hello"]))
    finally:
        forward.terminate()
        forward.wait()


def _expect(wanted: str, found: str) -> None:
    if wanted not in found:
        raise ClusterError(f"expected {wanted!r}, found {found!r}")


def traces(name: str) -> Mapping[str, set[str]]:
    """All that the instance could leave on the machine, by kind."""
    ours = (f"{paths.state_dir(name)}/", f"{paths.run_dir(name)}/")
    others = (f"{paths.state_root()}/", f"{paths.run_dir(name).parent}/", f"{paths.image_dir()}/")
    processes = {path.parent.name: _command(path) for path in Path("/proc").glob("[0-9]*/cmdline")}
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    links = json.loads(run(["ip", "-json", "address"]))
    links = [link for link in links if not link["ifname"].startswith("lf-") or link["ifname"] == Network(name).device]
    groups = [*CGROUPS.glob(f"*/lorafleet-{name}"), *CGROUPS.glob(f"lorafleet-{name}")]
    return {
        "processes": {f"{pid} {text}" for pid, text in processes.items() if any(word in text for word in ours)},
        "mounts": {mount for mount in mounts if mount.startswith(ours) or not mount.startswith(others)},
        "namespaces": {line for line in run(["ip", "netns"]).splitlines() if line.split()[0] == name},
        "addresses": {f"{link['ifname']} {each['local']}" for link in links for each in link["addr_info"]},
        "interfaces": {link["ifname"] for link in links},
        "control groups": set(map(str, groups)),
        "folders": {folder for folder in _FOLDERS if Path(folder).exists()},
        "settings": {f"{path} {Path(path).read_text().strip()}" for path in _SETTINGS},
    }


_FOLDERS = ("/var/lib/cni", "/var/lib/kubelet", "/var/log/containers", "/var/log/pods", "/run/containerd", "/run/netns")
_SETTINGS = ("/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops")


def _command(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
