"""What should change so that a model is served as the registry wants it: pure decisions.

The follower calls these with what it last read and what it serves, and acts on the answer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from serving.core.model import Alias, VersionRef
from serving.pool import VersionKey
from serving.store.overrides import Override
from serving.store.registry import RegisteredModel

_FIRST_RETRY_SECONDS = 2.0
_LONGEST_RETRY_SECONDS = 300.0
_ORDER = (Alias.CHAMPION, Alias.PREVIOUS, Alias.CHALLENGER, Alias.SHADOW)


class StepKind(StrEnum):
    SERVE = "serve"
    DROP = "drop"
    ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Step:
    """One change of one alias. `key` is set for SERVE alone."""

    kind: StepKind
    alias: str
    key: VersionKey | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a wanted version is not served, and when it is worth another try."""

    key: VersionKey
    reason: str
    attempts: int
    retry_at: float

    def after(self, monotonic: float) -> bool:
        return monotonic >= self.retry_at


def refused(earlier: Refusal | None, key: VersionKey, reason: str, monotonic: float) -> Refusal:
    """The next refusal of `key`: each try waits twice as long as the one before."""
    attempts = earlier.attempts + 1 if earlier is not None and earlier.key == key else 1
    wait_seconds = min(_FIRST_RETRY_SECONDS * 2 ** (attempts - 1), _LONGEST_RETRY_SECONDS)
    return Refusal(key, reason, attempts, monotonic + wait_seconds)


def wishes(registered: RegisteredModel | None, overrides: Iterable[Override]) -> dict[str, VersionKey]:
    """The version every alias should answer with: the registry's, under the overrides in force.

    Of several overrides for one role the last in order holds.
    """
    if registered is None:
        return {}
    wanted = dict(registered.aliases)
    for override in overrides:
        if has_ended(override, registered):
            continue
        if override.answer_with is None:
            wanted.pop(override.role, None)
        else:
            wanted[override.role] = override.answer_with
    return {
        alias: VersionKey(VersionRef(registered.name, version), registered.created_ms)
        for alias, version in wanted.items()
    }


def has_ended(override: Override, registered: RegisteredModel) -> bool:
    """An override lives while its role still names the version it was laid against."""
    return registered.aliases.get(override.role) != override.not_version


def steps(
    wanted: Mapping[str, VersionKey],
    served: Mapping[str, VersionKey],
    refusals: Mapping[str, Refusal],
    monotonic: float,
) -> list[Step]:
    """The changes that are due, most important alias first; empty when all is as wanted."""
    due = [
        Step(StepKind.SERVE, alias, key)
        for alias, key in wanted.items()
        if served.get(alias) != key and _may_try(refusals.get(alias), key, monotonic)
    ]
    for alias in served.keys() - wanted.keys():
        due.append(Step(StepKind.ORPHAN if alias == Alias.CHAMPION else StepKind.DROP, alias))
    return sorted(due, key=lambda step: (_rank(step.alias), step.alias))


def orphan_is_over(since: datetime, now: datetime, orphan_minutes: float) -> bool:
    """Whether a champion without its alias has answered long enough."""
    return now - since >= timedelta(minutes=orphan_minutes)


def registry_lost_everything(registered: Mapping[str, RegisteredModel], served_models: Iterable[str]) -> bool:
    """A poll that names none of the models being served is a fault of the registry, not a wish."""
    served = list(served_models)
    return bool(served) and not any(model in registered for model in served)


def _may_try(refusal: Refusal | None, key: VersionKey, monotonic: float) -> bool:
    return refusal is None or refusal.key != key or refusal.after(monotonic)


def _rank(alias: str) -> int:
    return _ORDER.index(Alias(alias)) if alias in _ORDER else len(_ORDER)
