"""How long it takes from the registry's wish for a new champion to that version's first answer.

The follower's turn notes the wish, the recorder's sums show the answer; a probe's counts too, so that a
model without traffic is measured as well.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from serving.core.clock import Clock
from serving.core.model import Alias, VersionRef
from serving.core.window import OK
from serving.followed import FollowedModel
from serving.telemetry.metrics import Metrics
from serving.telemetry.reel import Ended


@dataclass(frozen=True, slots=True)
class _Wish:
    ref: VersionRef
    seen_at: datetime
    is_first: bool


class SwapTimes:
    """`note` belongs to the event loop's thread, `look` to whoever settles the recorder."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._seconds = metrics.swap_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._wishes: dict[str, _Wish] = {}

    def note(self, model: FollowedModel) -> None:
        """Remember what is wanted and does not answer yet; called on every turn of the follower."""
        wanted = model.registered.aliases.get(Alias.CHAMPION) if model.registered is not None else None
        served = model.champion.ref.version if model.champion is not None else None
        with self._lock:
            present = self._wishes.get(model.name)
            if wanted is None:
                self._wishes.pop(model.name, None)
            elif wanted != served and (present is None or present.ref.version != wanted):
                ref = VersionRef(model.name, wanted)
                self._wishes[model.name] = _Wish(ref, self._clock.now(), is_first=served is None)

    def look(self, ended: Iterable[Ended]) -> None:
        """Measure the wishes that were met. The first version of a model swaps nothing."""
        if not self._wishes:
            return
        with self._lock:
            for each in ended:
                wish = self._wishes.get(each.ref.model)
                if wish is None or wish.ref != each.ref or each.status != OK:
                    continue
                seen_at = wish.seen_at.timestamp()
                since = each.times[each.times >= seen_at]
                if not len(since):
                    continue
                del self._wishes[each.ref.model]
                if not wish.is_first:
                    self._seconds.labels(each.ref.model).observe(float(since.min()) - seen_at)
