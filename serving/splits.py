"""Follows the traffic tag: the split that the registry asks for becomes durable, then visible.

Level-triggered: looked at after each turn of the follower, and beside its loads, so that a stage that
changes waits for no other version. The follower's swaps decide when both versions of a split are served.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from serving.core.clock import Clock
from serving.core.errors import StoreUnavailable
from serving.core.model import Alias, Tag
from serving.core.traffic import Split, Unreadable, Why, read_tag, wanted_split
from serving.followed import FollowedModel
from serving.ledger import Ledger
from serving.library import ACTOR
from serving.notices import traffic_unreadable
from serving.pool import VersionKey
from serving.telemetry.metrics import Metrics
from serving.visibility import Visibility

log = logging.getLogger(__name__)


class Splits:
    """Confined to the event loop's thread."""

    def __init__(
        self,
        wanted: Callable[[FollowedModel], Mapping[str, VersionKey]],
        visibility: Visibility,
        ledger: Ledger,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._wanted_versions = wanted
        self._visibility = visibility
        self._ledger = ledger
        self._metrics = metrics
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, str] = {}
        self._changed = asyncio.Event()

    def consider(self, model: FollowedModel) -> None:
        """Apply what a model's registry state asks for, if that is not so yet."""
        self._tell_unreadable(model)
        task = self._tasks.get(model.name)
        is_idle = task is None or task.done()
        if is_idle and self._target(model) != model.split:
            self._tasks[model.name] = asyncio.create_task(self._apply(model))

    def note_restored(self, model: FollowedModel, before: Split | None) -> None:
        """A split that requests meet from now on, as it was before a restart."""
        split = model.shown_split
        model.split_since = self._clock.now()
        self._metrics.traffic_percent.labels(model.name).set(split.percent if split else 0)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def note_changed(self, model: FollowedModel, before: Split | None) -> None:
        """A split that requests meet from now on, for whatever reason it changed."""
        self.note_restored(model, before)
        split = model.shown_split
        challenger = split.challenger if split else before.challenger if before else None
        log.info("traffic_split model=%s challenger=%s split=%s", model.name, challenger, split)
        self._ledger.audit(
            "traffic",
            actor=ACTOR,
            model=model.name,
            version=challenger,
            step="applied",
            percent=split.percent if split else 0,
            from_percent=before.percent if before else 0,
            rollout=split.rollout if split else None,
        )

    async def changes(self, met: Callable[[], bool], timeout_seconds: float) -> bool:
        """Whether `met` becomes true within the time; looked at whenever any split changes."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not met():
                    await self._changed.wait()
        except TimeoutError:
            return met()
        return True

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wish(self, model: FollowedModel) -> Split | Why:
        """What tag, aliases and overrides ask for."""
        tags = model.registered.tags if model.registered else {}
        aliases = {alias: key.ref.version for alias, key in self._wanted_versions(model).items()}
        return wanted_split(read_tag(tags.get(Tag.TRAFFIC)), aliases)

    def explain(self, model: FollowedModel) -> str | None:
        """Why requests meet no split although a tag is set; None where there is nothing to explain."""
        wish = self.wish(model)
        if model.shown_split is not None or wish is Why.NO_TAG:
            return None
        if isinstance(wish, Why):
            return str(wish)
        for alias in (Alias.CHALLENGER, Alias.CHAMPION):
            if (refusal := model.refusals.get(alias)) is not None:
                return f"version {refusal.key.ref.version} was refused: {refusal.reason}"
        return f"version {wish.challenger} is not served yet"

    def _target(self, model: FollowedModel) -> Split | None:
        wish = self.wish(model)
        if isinstance(wish, Split):
            return wish
        return model.split if self._has_won(model) else None

    def _has_won(self, model: FollowedModel) -> bool:
        """Whether the challenger is to be champion, and only its swap is missing.

        Its share stays until then: nobody is sent back to the old champion in between.
        """
        split, champion = model.split_in_effect(), self._wanted_versions(model).get(Alias.CHAMPION)
        return split is not None and champion is not None and champion.ref.version == split.challenger

    async def _apply(self, model: FollowedModel) -> None:
        try:
            async with model.lock:
                before, model.split = model.split, self._target(model)
                try:
                    await self._visibility.publish(model)
                except StoreUnavailable as error:  # not durable, so not shown; the next turn tries again
                    model.split = before
                    log.error("split_not_durable model=%s reason=%s", model.name, error)
        except Exception:  # a task edge: the next turn tries again
            log.exception("split_failed model=%s", model.name)

    def _tell_unreadable(self, model: FollowedModel) -> None:
        """Say once that a tag means nothing."""
        text = model.registered.tags.get(Tag.TRAFFIC) if model.registered else None
        tag = read_tag(text)
        if text is None or not isinstance(tag, Unreadable):
            self._told.pop(model.name, None)
            return
        if self._told.get(model.name) == text:
            return
        self._told[model.name] = text
        log.warning("traffic_unreadable model=%s reason=%s", model.name, tag.reason)
        self._ledger.audit("traffic", actor=ACTOR, model=model.name, step="refused", reason=tag.reason)
        self._ledger.notify(traffic_unreadable(model.name, tag.reason))
