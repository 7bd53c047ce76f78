"""Whether a champion is failing: pure arithmetic over its last answers.

The inference path feeds one window per champion; the verdict is a function of the window and a moment.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

WINDOW_SECONDS = 10.0
MIN_ANSWERS = 5
MIN_FAILED_RATIO = 0.2


@dataclass(frozen=True, slots=True)
class Evidence:
    """Answers of one version within the window. `failed` counts those the fallback could answer."""

    answers: int
    failed: int

    @property
    def is_failing(self) -> bool:
        return self.answers >= MIN_ANSWERS and self.failed >= MIN_FAILED_RATIO * self.answers

    def __str__(self) -> str:
        return f"{self.failed} of {self.answers} answers within {WINDOW_SECONDS:.0f} s failed"


@dataclass(frozen=True, slots=True)
class Slowness:
    """That a champion answers slower than the version before: `said` gives the figures of both."""

    said: str

    def __str__(self) -> str:
        return self.said


@dataclass(slots=True)
class AnswerWindow:
    """The answers of the last seconds, in one bucket per second of monotonic time."""

    _buckets: deque[list[int]] = field(default_factory=deque)

    def add(self, monotonic: float, *, failed: bool) -> None:
        second = int(monotonic)
        if not self._buckets or self._buckets[-1][0] != second:
            self._buckets.append([second, 0, 0])
            self._forget(monotonic)
        bucket = self._buckets[-1]
        bucket[1] += 1
        bucket[2] += failed

    def evidence(self, monotonic: float) -> Evidence:
        self._forget(monotonic)
        return Evidence(
            answers=sum(bucket[1] for bucket in self._buckets),
            failed=sum(bucket[2] for bucket in self._buckets),
        )

    def _forget(self, monotonic: float) -> None:
        while self._buckets and self._buckets[0][0] <= int(monotonic) - WINDOW_SECONDS:
            self._buckets.popleft()


@dataclass(frozen=True, slots=True)
class Watch:
    """A promise to roll `version` back to `previous` if it fails before `until`."""

    version: str
    previous: str
    by_hand: bool
    until: datetime

    def covers(self, version: str, now: datetime) -> bool:
        return version == self.version and now < self.until
