"""Rate limits: how often each key, and each address without one, may ask. Off unless somebody set them.

They hold for the whole server: workers tell each other what they let in about once a second, and each
takes it from its own buckets. A burst spread over N workers may come to N times the limit until then, and
is paid back after it.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from serving.core.clock import Clock
from serving.core.errors import RateLimited
from serving.core.keys import Key
from serving.core.rate import Bucket, full, spend, take

# Addresses beyond this many are forgotten, the longest unseen first: memory stays bounded.
_MAX_PLACES = 10_000
# Who asked here within this time is told to the other workers.
_TOLD_SECONDS = 10.0


@dataclass(slots=True)
class _Place:
    """Who is limited, and how many requests of theirs this worker let in."""

    bucket: Bucket
    per_second: float
    admitted: int = 0


class RateLimits:
    """Confined to the event loop's thread. `anonymous_per_second` of 0 limits nobody without a key."""

    def __init__(self, clock: Clock, anonymous_per_second: float = 0.0) -> None:
        self._clock = clock
        self._anonymous_per_second = anonymous_per_second
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._heard: dict[tuple[str, str], int] = {}

    def check(self, key: Key | None, address: str) -> None:
        """Count one request. Raises `RateLimited` for one too many."""
        if key is not None:
            if key.requests_per_second is not None:
                self._take(f"key:{key.id}", f"key '{key.name}'", key.requests_per_second)
        elif self._anonymous_per_second > 0:
            self._take(f"address:{address}", f"address {address}", self._anonymous_per_second)

    def admitted(self) -> dict[str, int]:
        """How many requests this worker ever let in, by who asked lately."""
        since = self._clock.monotonic() - _TOLD_SECONDS
        return {
            name: place.admitted for name, place in self._places.items() if place.bucket.filled_at > since
        }

    def heard(self, told: Mapping[str, Mapping[str, int]]) -> None:
        """Take what other workers let in since they told last from the buckets here; `told` is by worker."""
        now = self._clock.monotonic()
        for worker, counts in told.items():
            for name, count in counts.items():
                # A total heard for the first time says nothing of when: it is where counting begins.
                more = count - self._heard.get((worker, name), count)
                self._heard[worker, name] = count
                if more > 0 and (place := self._places.get(name)) is not None:
                    place.bucket = spend(place.bucket, more, place.per_second, now)
        for worker, name in list(self._heard):
            if name not in told.get(worker, {}):
                del self._heard[worker, name]

    def _take(self, name: str, who: str, per_second: float) -> None:
        now = self._clock.monotonic()
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = _Place(full(per_second, now), per_second)
            if len(self._places) > _MAX_PLACES:
                self._places.popitem(last=False)
        place.per_second = per_second
        place.bucket, wait_seconds = take(place.bucket, per_second, now)
        self._places.move_to_end(name)
        if wait_seconds > 0:
            raise RateLimited(who, retry_after_seconds=wait_seconds)
        place.admitted += 1
