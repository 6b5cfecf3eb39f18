"""The command line: `python -m e2e.cluster up|down|status|images|enter|check`."""

from __future__ import annotations

import argparse
import os
import sys
import time

from e2e.cluster import binaries, images, paths
from e2e.cluster.check import check
from e2e.cluster.seam import DEFAULT_NAME, open_cluster
from e2e.cluster.shell import ClusterError, say


def main() -> int:
    words = _parser().parse_args()
    try:
        return int(words.run(words) or 0)
    except ClusterError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _up(words: argparse.Namespace) -> None:
    begun = time.monotonic()
    cluster = open_cluster(words.name, control_plane_only=words.control_plane_only)
    cluster.up()
    say(f"{cluster.name} is up ({time.monotonic() - begun:.1f} s); kubectl and helm are in {paths.bin_dir()}")
    print(f"export KUBECONFIG={cluster.kubeconfig()}")


def _down(words: argparse.Namespace) -> None:
    open_cluster(words.name).down()
    images.tidy()
    say(f"{words.name} is down")


def _status(words: argparse.Namespace) -> int:
    parts = open_cluster(words.name).status()
    for part, state in parts.items():
        print(f"{part:<26} {state}")
    if not parts:
        say(f"there is no cluster {words.name}; `make cluster-up` makes one")
    return 0 if parts else 1


def _images(words: argparse.Namespace) -> None:
    archives = [images.build(which) for which in words.which or images.NAMES]
    for archive in archives:
        print(archive)
    if words.load:
        cluster = open_cluster(words.name)
        for archive in archives:
            cluster.load_image(archive)


def _enter(words: argparse.Namespace) -> None:
    cluster = open_cluster(words.name)
    command = [word for word in words.command if word != "--"] or [os.environ.get("SHELL", "bash")]
    path = f"{paths.bin_dir()}:{os.environ.get('PATH', '')}"
    env = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig()), "PATH": path}
    argv = [*cluster.enter(), *command]
    os.execvpe(argv[0], argv, env)


def _check(words: argparse.Namespace) -> None:
    check(words.name)


def _build(words: argparse.Namespace) -> None:
    binaries.ensure()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description=__doc__)
    parser.add_argument("--name", default=DEFAULT_NAME, help="which instance (default: %(default)s)")
    commands = parser.add_subparsers(required=True)
    # SUPPRESS, so that a --name before the command is not undone by the command's own default.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default=argparse.SUPPRESS, help=argparse.SUPPRESS)

    up = commands.add_parser("up", parents=[common], help="make a cluster, or find it running")
    up.add_argument("--control-plane-only", action="store_true", help="etcd, API server and controllers, no node")
    up.set_defaults(run=_up)
    for name, run, text in (
        ("down", _down, "take it down and leave nothing behind"),
        ("status", _status, "each part and its state"),
        ("build", _build, "build the programs and stop there"),
        ("check", _check, "prove the cluster: pods, services, names, exec, logs, and that down leaves nothing"),
    ):
        commands.add_parser(name, parents=[common], help=text).set_defaults(run=run)
    pictures = commands.add_parser("images", parents=[common], help="build the images, all or the named")
    pictures.add_argument("which", nargs="*", choices=[[], *images.NAMES])
    pictures.add_argument("--load", action="store_true", help="and load them into the cluster")
    pictures.set_defaults(run=_images)
    enter = commands.add_parser("enter", parents=[common], help="run a command where pods and services answer")
    enter.add_argument("command", nargs=argparse.REMAINDER)
    enter.set_defaults(run=_enter)
    return parser


if __name__ == "__main__":
    sys.exit(main())
