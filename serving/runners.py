"""A version's own threads, so that a model that hangs holds up no other.

Started when first needed. A thread that never returns is left behind when its version is released: it
is a daemon, and nothing of ours waits for it without a limit.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue

Work = Callable[[], None]


class Runners:
    """`start` may be called from any thread, never after `stop`."""

    def __init__(self, count: int, name: str) -> None:
        self.count = count
        self._name = name
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._guard = threading.Lock()

    def start(self, work: Work) -> None:
        """Have `work` done by the next thread that is free. It must not raise."""
        with self._guard:
            if self._idle > 0:
                self._idle -= 1
            elif len(self._threads) < self.count:
                thread = threading.Thread(
                    target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True
                )
                self._threads.append(thread)
                thread.start()
        self._queue.put(work)

    def stop(self) -> None:
        """Let the threads end once they have done what they were given."""
        with self._guard:
            for _ in self._threads:
                self._queue.put(None)
            self._threads, self._idle = [], 0

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
            with self._guard:
                self._idle += 1
