"""Two things at once with one chunk: it is hashed while it is written.

Both take long enough for large chunks, outside of Python's lock, to keep a core busy each. Nothing is queued: whoever
starts something waits for it before the next, so that both always know the same bytes.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Work = Callable[[], None]
Start = Callable[[Work], Work]
"""Starts something, and gives what waits for its end and raises what it raised."""


def now(work: Work) -> Work:
    """Does it at once, in this thread."""
    work()
    return _nothing


@contextmanager
def beside(name: str) -> Iterator[Start]:
    """A thread that does one thing after another while the block runs."""
    todo: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        while (work := todo.get()) is not None:
            try:
                work()
            except BaseException as error:
                done.put(error)
            else:
                done.put(None)

    def wait() -> None:
        error = done.get()
        if error is not None:
            raise error

    def start(work: Work) -> Work:
        todo.put(work)
        return wait

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield start
    finally:
        todo.put(None)
        thread.join()


def _nothing() -> None:
    pass
