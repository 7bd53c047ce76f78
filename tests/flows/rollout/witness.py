"""What live traffic says in tests: evidence of every kind, with as many requests as time gives."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from flows.rollout.evidence import Evidence, Span
from serving.core.comparison import OutputTally, Tally, compare
from serving.core.sketch import Sketch
from serving.core.window import WindowStats

PER_SECOND = 20


def stats(requests: int, *, faults: int = 0, ms: float = 4.0) -> WindowStats:
    """A side with this many requests, each answered in `ms` or failed."""
    answered = requests - faults
    return WindowStats(
        statuses={"ok": answered},
        rows=answered,
        faults=faults,
        latency=Sketch.of(np.full(answered, ms / 1000)),
    )


ENOUGH_PAIRS = 40


def pairs(count: int, *, differing_ratio: float = 0.0) -> Tally:
    """Pairs of answers of three columns, some with another largest one; more than enough are as enough."""
    total, count = Tally(), min(count, ENOUGH_PAIRS)
    differing = round(differing_ratio * count)
    one, two = np.array([[0.1, 0.8, 0.1]]), np.array([[0.8, 0.1, 0.1]])
    for number in range(count):
        total.add(compare({"output": one}, {"output": two if number < differing else one}), 0.004, 0.004)
    return total


def numbers(count: int, champion: float, other: float) -> Tally:
    """Pairs of one number each."""
    total = Tally()
    for _ in range(count):
        found: dict[str, OutputTally] = compare(
            {"y": np.array([[champion]], np.float32)}, {"y": np.array([[other]], np.float32)}
        )
        total.add(found, 0.004, 0.004)
    return total


def mixed(count: int, first: str, *, number: float = 10.0, differing_ratio: float = 0.0) -> Tally:
    """Pairs of a number, 10.0 of the champion, and of two columns, in either order."""
    total, one, two = Tally(), np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    differing = round(differing_ratio * count)
    for index in range(count):
        champion = {"price": np.array([[10.0]]), "bands": one}
        other = {"price": np.array([[float(number)]]), "bands": two if index < differing else one}
        order = sorted(champion, key=lambda name: name != first)
        total.add(compare(*({name: side[name] for name in order} for side in (champion, other))), 0.0, 0.0)
    return total


def equal(requests: int, *, is_final: bool = False) -> Evidence:
    """Two versions between which there is no difference."""
    return Evidence(
        champion=stats(requests), challenger=stats(requests), pairs=pairs(requests), is_final=is_final
    )


Says = Callable[[Span, int], Evidence]


@dataclass
class Witness:
    """An `EvidenceSource`; `says` makes evidence of a span and the requests of each side in it."""

    says: Says = lambda span, requests: equal(requests, is_final=span.is_final)
    spans: list[Span] = field(default_factory=list)

    def collect(self, span: Span) -> Evidence:
        self.spans.append(span)
        return self.says(span, int((span.until - span.since).total_seconds() * PER_SECOND))


def healthy(span: Span, requests: int) -> Evidence:
    return equal(requests, is_final=span.is_final)


def erroneous(span: Span, requests: int) -> Evidence:
    """A quarter of the challenger's requests fail."""
    bad = stats(requests, faults=requests // 4)
    return Evidence(champion=stats(requests), challenger=bad, pairs=pairs(requests), is_final=span.is_final)
