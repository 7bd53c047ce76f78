"""Rate limits: how often each key, and each address without one, may ask. Off unless somebody set them."""

from collections import OrderedDict

from serving.core.clock import Clock
from serving.core.errors import RateLimited
from serving.core.keys import Key
from serving.core.rate import Bucket, full, take

# Addresses beyond this many are forgotten, the longest unseen first: memory stays bounded.
_MAX_BUCKETS = 10_000


class RateLimits:
    """Confined to the event loop's thread. `anonymous_per_second` of 0 limits nobody without a key."""

    def __init__(self, clock: Clock, anonymous_per_second: float = 0.0) -> None:
        self._clock = clock
        self._anonymous_per_second = anonymous_per_second
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def check(self, key: Key | None, address: str) -> None:
        """Count one request. Raises `RateLimited` for one too many."""
        if key is not None:
            if key.requests_per_second is not None:
                self._take(f"key:{key.id}", f"key '{key.name}'", key.requests_per_second)
        elif self._anonymous_per_second > 0:
            self._take(f"address:{address}", f"address {address}", self._anonymous_per_second)

    def _take(self, place: str, who: str, per_second: float) -> None:
        now = self._clock.monotonic()
        bucket, wait_seconds = take(self._buckets.get(place) or full(per_second, now), per_second, now)
        self._buckets[place] = bucket
        self._buckets.move_to_end(place)
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if wait_seconds > 0:
            raise RateLimited(who, retry_after_seconds=wait_seconds)
