"""Watches the latency of new champions, from what the store knows of all workers' answers.

Off the request path: a look now and then at champions under watch. What is found is said on the model, and
a champion proved slower goes the way of one whose answers fail.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from serving.core.clock import Clock
from serving.core.comparison import Pair, Role, Tally
from serving.core.errors import StoreUnavailable
from serving.core.latency import LatencyRule, Times
from serving.core.model import Variant
from serving.followed import FollowedModel
from serving.ledger import Ledger
from serving.pace import FLUSHED, MIN_ANSWERS, Progress, Step, judged, window_of
from serving.store import comparisons, telemetry
from serving.watch import Slowness, Watch

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
# The last answers of the version before that are enough: those nearest to the change, if there are some.
_BACK = (timedelta(minutes=5), timedelta(minutes=30))


class Showing(Protocol):
    """Makes requests meet what a model has: `serving.visibility`."""

    def show(self, model: FollowedModel) -> None: ...


class Pacing:
    """Confined to the event loop's thread."""

    def __init__(
        self,
        models: Mapping[str, FollowedModel],
        on_slow_champion: Callable[[FollowedModel, Slowness], None],
        visibility: Showing,
        ledger: Ledger,
        clock: Clock,
        rule: LatencyRule,
        watch_for: timedelta,
    ) -> None:
        self._models = models
        self._on_slow_champion = on_slow_champion
        self._visibility = visibility
        self._ledger = ledger
        self._clock = clock
        self._rule = rule
        self._watch_for = watch_for
        self._baselines: dict[tuple[str, str, datetime], Times] = {}

    async def run(self) -> None:
        """Look at every champion under watch, again and again, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for model in list(self._models.values()):
                try:
                    await self.look(model)
                except StoreUnavailable as error:
                    log.debug("pace_waits model=%s reason=%s", model.name, error)
                except Exception:  # one model must not end the loop that looks at all
                    log.exception("pace_not_judged model=%s", model.name)

    async def look(self, model: FollowedModel) -> None:
        """Judge what is due of one model. Raises `StoreUnavailable`."""
        watch, now = model.watch, self._clock.now()
        champion = model.champion
        if watch is None or champion is None:
            await self._put(model, None)
            return
        if not watch.covers(champion.ref.version, now):  # what was found last is still told
            await self._put(model, model.pace and replace(model.pace, control_from=None))
            return
        progress = model.pace
        if progress is None or (progress.version, progress.until) != (watch.version, watch.until):
            progress = Progress.begun(watch.version, watch.until, self._watch_for)
        if progress.control_from is not None:
            await self._look_at_control(model, watch, progress, progress.control_from, now)
        elif now >= progress.window_from + window_of(self._watch_for) + FLUSHED:
            await self._look_at_window(model, watch, progress, now - FLUSHED)
        else:
            await self._put(model, progress)

    async def _look_at_window(
        self, model: FollowedModel, watch: Watch, progress: Progress, until: datetime
    ) -> None:
        before = await self._baseline(model, watch)
        answers = await self._answers(model.name, watch.version, progress.window_from, until)
        found = judged((watch.previous, before), (watch.version, answers), self._rule, "answers")
        after = progress.after_window(found, until)
        if after.control_from is not None:
            log.warning("champion_slow model=%s %s", model.name, found.said)
        await self._put_if_same(model, watch, after)

    async def _look_at_control(
        self, model: FollowedModel, watch: Watch, progress: Progress, since: datetime, now: datetime
    ) -> None:
        pair = Pair(model.name, watch.previous, watch.version, Role.CHALLENGER, is_control=True)
        found = await self._ledger.look(
            lambda engine: comparisons.window(engine, model.name, since, now, other=watch.version)
        )
        tally = found.get(pair, Tally())
        sides = (watch.previous, tally.champion_times), (watch.version, tally.other_times)
        judgement = judged(*sides, self._rule, "copies")
        step, after = progress.after_control(judgement, now)
        if not await self._put_if_same(model, watch, after):
            return
        if after.control_from is None:
            log.warning("champion_paced model=%s step=%s %s", model.name, step, after.said)
        if step is Step.ROLL_BACK:
            self._on_slow_champion(model, Slowness(after.said))

    async def _baseline(self, model: FollowedModel, watch: Watch) -> Times:
        """What `previous` took, as champion, before the swap."""
        key = model.name, watch.version, watch.until
        if key not in self._baselines:
            swapped_at = watch.until - self._watch_for
            answers = await self._answers(model.name, watch.previous, swapped_at - _BACK[0], swapped_at)
            if answers.count < MIN_ANSWERS:
                answers = await self._answers(model.name, watch.previous, swapped_at - _BACK[1], swapped_at)
            self._baselines = {known: t for known, t in self._baselines.items() if known[0] != model.name}
            self._baselines[key] = answers
        return self._baselines[key]

    async def _answers(self, model: str, version: str, since: datetime, until: datetime) -> Times:
        window = await self._ledger.look(
            lambda engine: telemetry.window(engine, model, version, Variant.CHAMPION, since, until)
        )
        return window.latency

    async def _put_if_same(self, model: FollowedModel, watch: Watch, progress: Progress) -> bool:
        """Nothing was decided of a model that changed while the store was asked."""
        now = model.watch
        is_same = now is not None and (now.version, now.until) == (watch.version, watch.until)
        if is_same:
            await self._put(model, progress)
        return is_same

    async def _put(self, model: FollowedModel, progress: Progress | None) -> None:
        """Note it; requests meet it where copies begin or end."""
        was_asked, model.pace = model.control is not None, progress
        if was_asked != (model.control is not None):
            async with model.lock:  # what is not durable yet must not show
                self._visibility.show(model)
