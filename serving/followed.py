"""What the follower knows about one model: wanted, served, refused, watched.

Confined to the event loop's thread. `lock` is held while a change becomes durable and visible,
never while something loads.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from serving.core.model import Alias, VersionRef
from serving.core.traffic import Split
from serving.pace import Progress
from serving.pool import LoadedVersion, VersionKey
from serving.reconcile import Refusal
from serving.routes import ModelRoutes
from serving.store.record import ModelRecord, ServedVersion, WatchRecord
from serving.store.registry import RegisteredModel
from serving.watch import AnswerWindow, Watch

_MAX_CHAMPIONS = 10


@dataclass(frozen=True, slots=True)
class Preparing:
    """The one change under way."""

    alias: str
    key: VersionKey


@dataclass(slots=True)
class Trial:
    """The answers that one challenger gave to its part of the traffic."""

    key: VersionKey
    window: AnswerWindow = field(default_factory=AnswerWindow)
    is_ending: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """What a change alters and a failed one puts back."""

    served: Mapping[str, LoadedVersion]
    previous: LoadedVersion | None
    champions: tuple[ServedVersion, ...]
    watch: Watch | None
    window: AnswerWindow
    swapped_at: datetime | None


@dataclass(slots=True)
class FollowedModel:
    name: str
    registered: RegisteredModel | None = None
    served: dict[str, LoadedVersion] = field(default_factory=dict)
    previous: LoadedVersion | None = None
    champions: list[ServedVersion] = field(default_factory=list)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    reported: dict[str, str] = field(default_factory=dict)
    watch: Watch | None = None
    window: AnswerWindow = field(default_factory=AnswerWindow)
    orphaned_since: datetime | None = None
    swapped_at: datetime | None = None
    # What each alias that people move named when that was last found on record.
    recorded: dict[str, str | None] = field(default_factory=dict)
    is_rolling_back: bool = False
    alerted_for: VersionKey | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    task: asyncio.Task[None] | None = None
    preparing: Preparing | None = None
    kept: list[LoadedVersion] = field(default_factory=list)
    by_hand: dict[str, LoadedVersion] = field(default_factory=dict)
    is_answering: bool = False
    # What the registry asks for, on record; `split_in_effect` is what requests meet of it.
    split: Split | None = None
    split_reason: str = ""
    shown_split: Split | None = None
    split_since: datetime | None = None
    trial: Trial | None = None
    # Of the watched champion's latency; `control` is what requests meet of it.
    pace: Progress | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether the registry names a champion."""
        return self.registered is not None and Alias.CHAMPION in self.registered.aliases

    @property
    def champion(self) -> LoadedVersion | None:
        return self.served.get(Alias.CHAMPION)

    @property
    def challenger(self) -> LoadedVersion | None:
        return self.served.get(Alias.CHALLENGER)

    @property
    def control(self) -> LoadedVersion | None:
        """The version before, while the champion seems slower than it was."""
        pace, watch = self.pace, self.watch
        if pace is None or watch is None or pace.control_from is None:
            return None
        return self.previous if (pace.version, pace.until) == (watch.version, watch.until) else None

    def split_in_effect(self) -> Split | None:
        """The split on record, while both its versions are served; a challenger that is champion has won."""
        split, champion, challenger = self.split, self.champion, self.challenger
        if split is None or champion is None or challenger is None or champion.key == challenger.key:
            return None
        return split if challenger.ref.version == split.challenger else None

    def trial_of(self, challenger: LoadedVersion) -> Trial:
        """What is known of this challenger; another one begins anew."""
        if self.trial is None or self.trial.key != challenger.key:
            self.trial = Trial(challenger.key)
        return self.trial

    @property
    def previous_record(self) -> ServedVersion | None:
        """The last version that held `champion` before the present one and did not fail."""
        return self.champions[-2] if len(self.champions) > 1 else None

    def served_keys(self) -> dict[str, VersionKey]:
        return {alias: version.key for alias, version in self.served.items()}

    def in_use(self) -> list[LoadedVersion]:
        """Versions that must stay in memory."""
        standing_in = [self.previous] if self.previous is not None else []
        return [*self.served.values(), *standing_in, *self.by_hand.values(), *self.kept]

    @contextmanager
    def keeping(self, version: LoadedVersion) -> Iterator[None]:
        """Hold a version in memory that was chosen, but waits for the lock to take its place."""
        self.kept.append(version)
        try:
            yield
        finally:
            self.kept.remove(version)

    def routes(self) -> ModelRoutes:
        by_hand = dict(self.by_hand)
        return ModelRoutes(dict(self.served), self.previous, by_hand, self.split_in_effect(), self.control)

    def as_restored(self) -> RegisteredModel | None:
        """What the registry named when this model was last served, as far as the local record tells."""
        champion = self.champion
        if champion is None:
            return None
        aliases = {alias: version.ref.version for alias, version in self.served.items()}
        return RegisteredModel(self.name, champion.key.created_ms, aliases, tags={}, description="")

    def prepare(self, alias: str, key: VersionKey) -> None:
        self.preparing = Preparing(alias, key)

    def key_of(self, version: str) -> VersionKey:
        """The key of a version of the model as it is registered, or was when it was last served."""
        if self.registered is not None:
            created_ms = self.registered.created_ms
        else:
            created_ms = next((served.created_ms for served in reversed(self.champions)), 0)
        return VersionKey(VersionRef(self.name, version), created_ms)

    def crown(self, version: ServedVersion) -> None:
        """Note that `version` holds the champion alias now."""
        kept = [
            earlier for earlier in self.champions if key_of(self.name, earlier) != key_of(self.name, version)
        ]
        self.champions = [*kept, version][-_MAX_CHAMPIONS:]

    def succeed(
        self,
        new: LoadedVersion,
        served: ServedVersion,
        left: str | None,
        now: datetime,
        watch_for: timedelta,
    ) -> None:
        """Settle who stands in for the new champion, and until when the change is watched.

        `left` is the version a rollback left for it: that one never stands in, and nobody watches.
        """
        old = self.champion or self.previous
        self.crown(served)
        self.window, self.watch, self.previous = AnswerWindow(), None, None
        self.swapped_at = now
        if left is not None:
            self.dethrone(VersionRef(self.name, left))
        elif old is not None and old.key != new.key:
            self.previous = old
            self.watch = Watch(new.ref.version, old.ref.version, by_hand=True, until=now + watch_for)

    def dethrone(self, ref: VersionRef) -> None:
        """Forget a version that failed: it never becomes `previous`."""
        self.champions = [earlier for earlier in self.champions if earlier.version != ref.version]

    def standing(self) -> Standing:
        return Standing(
            dict(self.served), self.previous, tuple(self.champions), self.watch, self.window, self.swapped_at
        )

    def put_back(self, standing: Standing) -> None:
        """Undo a change that could not be made durable."""
        self.served, self.champions = dict(standing.served), list(standing.champions)
        self.previous, self.watch, self.window = standing.previous, standing.watch, standing.window
        self.swapped_at = standing.swapped_at

    def record(self, cache_folder: Path) -> ModelRecord:
        watch = self.watch
        return ModelRecord(
            aliases={alias: as_served(version, cache_folder) for alias, version in self.served.items()},
            champions=tuple(self.champions),
            watch=WatchRecord(watch.version, watch.previous, watch.by_hand, watch.until) if watch else None,
            orphaned_since=self.orphaned_since,
            by_hand=tuple(as_served(version, cache_folder) for version in self.by_hand.values()),
            split=self.split,
        )


def as_served(version: LoadedVersion, cache_folder: Path) -> ServedVersion:
    """What the durable record keeps of a loaded version."""
    provenance = version.provenance
    return ServedVersion(
        version=version.ref.version,
        created_ms=version.key.created_ms,
        source=provenance.source,
        digest=provenance.digest,
        folder=str(provenance.folder.relative_to(cache_folder)),
    )


def key_of(model: str, served: ServedVersion) -> VersionKey:
    return VersionKey(VersionRef(model, served.version), served.created_ms)


def find_served(version: str, records: Iterable[ServedVersion]) -> ServedVersion | None:
    return next((served for served in records if served.version == version), None)
