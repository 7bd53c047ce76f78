"""A token bucket: how many requests a caller may begin, and how long one too many has to wait.

Pure; serving keeps one bucket per key, and per address of callers without one.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bucket:
    """`tokens` as of `filled_at`, a moment of the monotonic clock."""

    tokens: float
    filled_at: float


def full(per_second: float, now: float) -> Bucket:
    """A bucket that holds one second's worth, and never less than one request."""
    return Bucket(_capacity(per_second), now)


def take(bucket: Bucket, per_second: float, now: float) -> tuple[Bucket, float]:
    """The bucket after one request, and the seconds it has to wait: 0 where it may go on at once.

    A refused request costs nothing, so a caller who keeps asking is not shut out for ever.
    Source: token bucket as in RFC 2697 section 3, with one colour.
    """
    tokens = _filled(bucket, per_second, now)
    if tokens >= 1.0:
        return Bucket(tokens - 1.0, now), 0.0
    return Bucket(tokens, now), (1.0 - tokens) / per_second


def spend(bucket: Bucket, count: int, per_second: float, now: float) -> Bucket:
    """The bucket after `count` requests that were let in elsewhere.

    It may owe requests then, at most as many as it holds: nobody waits for longer than about a second.
    """
    tokens = _filled(bucket, per_second, now) - count
    return Bucket(max(tokens, -_capacity(per_second)), now)


def _filled(bucket: Bucket, per_second: float, now: float) -> float:
    passed = max(0.0, now - bucket.filled_at)
    return min(_capacity(per_second), bucket.tokens + passed * per_second)


def _capacity(per_second: float) -> float:
    return max(1.0, math.ceil(per_second))
