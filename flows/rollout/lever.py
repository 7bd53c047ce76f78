"""What a rollback does to the registry and sees of the replicas: guarded writes, waiting until all follow.

Used by `flows.rollout.retreat` alone, which decides what is to be done.
"""

from collections.abc import Callable

from flows.rollout.keeper import Keeper
from flows.rollout.retreat_parts import Ended, RetreatParts
from flows.rollout.verify import Applied
from flows.rollout.verify import Verdict as Seen
from serving.core.errors import RegistryUnavailable
from serving.core.model import Alias, VersionRef
from serving.core.traffic import Split, write_tag
from serving.store import overrides, workers
from serving.store.guard import Move, TrafficWish, Wish
from serving.store.overrides import Override
from serving.store.rollbacks import RollbackRecord, State
from serving.store.workers import Beat

APPLY_SECONDS = 60.0
_LOOK_SECONDS = 0.5

Look = Callable[[list[Beat]], Applied]


class Lever:
    """One rollback's writes, under one lease."""

    def __init__(self, parts: RetreatParts, record: RollbackRecord, keeper: Keeper) -> None:
        self._parts = parts
        self._record = record
        self._keeper = keeper

    def split(self, challenger: str, percent: int) -> None:
        """Give a challenger its share, for this rollback."""
        self._write(self._alias(Alias.CHALLENGER, challenger))
        tag = write_tag(Split(challenger, percent, self._record.id))
        self._write(TrafficWish(self._record.model, tag, self._record.actor, self._why))

    def clear_challenger(self) -> None:
        """Take the split away, and the alias if it is one of the two versions of this rollback."""
        record = self._record
        self._write(TrafficWish(record.model, None, record.actor, self._why))
        named = self._parts.registry.alias(record.model, Alias.CHALLENGER)
        if named in (None, record.from_version, record.to_version):
            # Also where it is gone already: a run that was killed right after left its intent open.
            self._write(self._alias(Alias.CHALLENGER, None))

    def move_champion(self) -> Move:
        """As serving's own rollbacks do: the override holds, whatever dies before the alias moves."""
        record = self._record
        overrides.save(self._parts.engine, self._override())
        return self._write(self._alias(Alias.CHAMPION, record.to_version, only_from=record.from_version))

    def confirm_champion(self) -> None:
        """The alias has moved; give an intent that a killed run left open its outcome."""
        self._write(self._alias(Alias.CHAMPION, self._record.to_version))

    def lift(self, why: str) -> None:
        """The override is over: the registry says the same, or somebody chose otherwise."""
        overrides.end(self._parts.engine, self._override(), why, now=self._parts.clock.now())

    def wait(self, look: Look) -> Applied | Ended:
        """Until every replica follows, one refuses, the target is ejected, or time runs out."""
        deadline = self._parts.clock.monotonic() + APPLY_SECONDS
        while True:
            seen = self._seen(look)
            if isinstance(seen, Ended) or seen.verdict is Seen.APPLIED:
                return seen
            if self._parts.clock.monotonic() >= deadline:
                return Ended(State.FAILED, f"not followed within {APPLY_SECONDS:.0f} s: {seen}")
            self._parts.pause(_LOOK_SECONDS)

    def hold(self, look: Look, seconds: float) -> Ended | None:
        """Stay for a while; the end, if anything speaks against going on."""
        until = self._parts.clock.monotonic() + seconds
        while (left := until - self._parts.clock.monotonic()) > 0:
            self._parts.pause(min(_LOOK_SECONDS, left))
            if isinstance(seen := self._seen(look), Ended):
                return seen
        return None

    def _seen(self, look: Look) -> Applied | Ended:
        seen = look(workers.live(self._parts.engine, self._parts.clock.now()))
        if seen.verdict is Seen.REFUSED:
            return Ended(State.FAILED, str(seen))
        record = self._record
        last = overrides.last_laid(self._parts.engine, record.model, Alias.CHALLENGER)
        if last is not None and last.not_version == record.to_version and last.laid_at >= record.created_at:
            return Ended(State.FAILED, f"serving ejected version {record.to_version}: {last.reason}")
        return seen

    def _write(self, wish: Wish | TrafficWish) -> Move:
        move = self._parts.guard.move(wish, self._keeper.lease)
        if not move.is_settled:
            if isinstance(wish, Wish) and wish.to_version is not None:
                self._parts.registry.version(VersionRef(wish.model, wish.to_version))
            raise RegistryUnavailable(move.reason)
        return move

    def _alias(self, alias: Alias, version: str | None, *, only_from: str | None = None) -> Wish:
        only = frozenset({only_from}) if only_from is not None else None
        return Wish(self._record.model, alias, version, self._record.actor, self._why, only)

    def _override(self) -> Override:
        record = self._record
        return Override(
            id=record.id,
            model=record.model,
            role=Alias.CHAMPION,
            not_version=record.from_version,
            answer_with=record.to_version,
            actor=record.actor,
            reason=record.reason,
            laid_at=self._parts.clock.now(),
        )

    @property
    def _why(self) -> str:
        return f"{self._record.strategy} rollback {self._record.id}"
