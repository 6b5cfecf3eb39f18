"""Memory that is there when a program asks for it, whatever the machine below does.

A virtual machine gives memory that is free back to its host, two seconds after it became so and in blocks of 2 MiB, and
gets it again page by page when somebody writes to it. Here that took ten times as long as writing (7.7 s instead of
0.9 s for 2 GiB), so that what was measured was which program had been lucky with its pages.
"""

import mmap
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PAGE = 4096
_BLOCK = 2 * 2**20


@contextmanager
def resident(size: int) -> Iterator[None]:
    """``size`` bytes of the machine's memory are free and stay with it.

    A process of its own takes them and gives them back but for a page of each block: no block is free as a whole then,
    and the kernel takes broken blocks first when it needs pages. (A child of who held them would inherit their count.)
    """
    command = [sys.executable, "-m", "bench.resident", str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        if not holder.stdout.readline():
            raise RuntimeError(f"{size} bytes of memory could not be taken; make room, or measure with --quick")
        yield


def main() -> None:
    """Holds the pages until standard input ends."""
    size = int(sys.argv[1])
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for at in range(0, size, _PAGE):
        memory[at] = 1
    for at in range(0, size, _BLOCK):
        memory.madvise(mmap.MADV_DONTNEED, at + _PAGE, min(_BLOCK, size - at) - _PAGE)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
