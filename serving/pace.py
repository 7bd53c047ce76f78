"""Whether a new champion keeps the pace of the one before: pure, from distributions of times and a moment.

Nothing is concluded from one look. Two windows in a row must show the champion slower than the version
before it was; then that version gets copies of the same requests at the same time, so that a busier
machine or heavier requests, which slow both, are no champion's fault.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from serving.core.latency import LatencyRule, Times

MIN_ANSWERS = 50
SLOW_WINDOWS = 2
NOT_YET = "latency was not judged yet"
# Of a watch as long as it is by default; a shorter one has shorter windows.
WINDOW_SECONDS = 30.0
_WINDOW_RATIO = 0.1
_WARM_UP_RATIO = 1 / 3
CONTROL_SECONDS = 120.0
# Time for what was answered last to reach the store.
FLUSHED = timedelta(seconds=2)


class Pace(StrEnum):
    """What a comparison with the version before shows."""

    TOO_FEW = "too_few"
    KEPT = "kept"
    UNPROVEN = "unproven"
    SLOWER = "slower"


@dataclass(frozen=True, slots=True)
class Judgement:
    """`said` gives both figures, for a person."""

    pace: Pace
    said: str


class Step(StrEnum):
    """What to do after a look."""

    WAIT = "wait"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the judging of one champion is.

    `window_from` is where the present window begins, `control_from` since when the version before gets
    copies, None while it gets none. `said` is what was found last, `slow` what the slow windows showed.
    """

    version: str
    until: datetime
    window_from: datetime
    slow_windows: int = 0
    control_from: datetime | None = None
    slow: str = ""
    said: str = NOT_YET

    @classmethod
    def begun(cls, version: str, until: datetime, watch_for: timedelta) -> "Progress":
        """Of a champion since the swap; its first answers, from cold caches, do not count."""
        return cls(version, until, until - watch_for + window_of(watch_for) * _WARM_UP_RATIO)

    def after_window(self, found: Judgement, now: datetime) -> "Progress":
        """One window further, unless it is to grow."""
        if found.pace is Pace.TOO_FEW:
            return replace(self, said=found.said)
        count = self.slow_windows + 1 if found.pace is Pace.SLOWER else 0
        control_from = now if count >= SLOW_WINDOWS else None
        return replace(
            self,
            window_from=now,
            slow_windows=count,
            control_from=control_from,
            slow=found.said,
            said=f"{found.said}; not proved" if found.pace is Pace.UNPROVEN else found.said,
        )

    def after_control(self, found: Judgement, now: datetime) -> "tuple[Step, Progress]":
        """Whether the version before is as slow on the same requests, which then begins everything anew."""
        if found.pace is Pace.SLOWER:
            return Step.ROLL_BACK, self._anew(f"{self.slow}; on the same requests {found.said}", now)
        if found.pace is not Pace.TOO_FEW:
            return Step.WAIT, self._anew(f"{self.slow}, but not on the same requests: {found.said}", now)
        if self.control_from is not None and now >= self.control_from + timedelta(seconds=CONTROL_SECONDS):
            return Step.WAIT, self._anew(f"{self.slow}, which was not confirmed: {found.said}", now)
        return Step.WAIT, replace(self, said=f"{self.slow}; being confirmed on the same requests")

    def _anew(self, said: str, now: datetime) -> "Progress":
        return replace(self, window_from=now, slow_windows=0, control_from=None, said=said)


def window_of(watch_for: timedelta) -> timedelta:
    """How long a window is at least."""
    return min(watch_for * _WINDOW_RATIO, timedelta(seconds=WINDOW_SECONDS))


def judged(
    previous: tuple[str, Times], champion: tuple[str, Times], rule: LatencyRule, noun: str
) -> Judgement:
    """Whether the champion is slower than the version before; each is given with its number."""
    (old, before), (new, now) = previous, champion
    counts = f"{now.count} {noun} of version {new} and {before.count} of version {old}"
    if min(before.count, now.count) < MIN_ANSWERS:
        return Judgement(Pace.TOO_FEW, f"latency is not judged: {counts}; {MIN_ANSWERS} of each are needed")
    seen = rule.contrast(before, now)
    figures = f"{seen.other_ms:.3g} ms against {seen.one_ms:.3g} ms"
    said = f"{rule.name} of version {new} is {figures} of version {old} ({counts})"
    if seen.is_proved:
        return Judgement(Pace.SLOWER, said)
    return Judgement(Pace.UNPROVEN if seen.is_beyond else Pace.KEPT, said)
