"""By which steps a gradual rollback takes traffic from one version to another: pure.

Two ways down. A champion is left by making the target the challenger, which gets more and more of the
traffic until it is champion. A challenger is left by giving it less and less.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.core.model import Alias
from serving.store.rollbacks import RollbackRecord

ALL_PERCENT = 100
USUAL_SHARES = (75, 50, 25)
USUAL_STAGE_SECONDS = 10.0
_STAGE = "stage_"


@dataclass(frozen=True, slots=True)
class Stage:
    """`share` percent of the traffic stay with the version that is left; `percent` is the challenger's."""

    share: int
    percent: int

    @property
    def step(self) -> str:
        return f"{_STAGE}{self.share}"


@dataclass(frozen=True, slots=True)
class Descent:
    """`challenger` is what alias challenger names meanwhile, and champion at last with `champion_moves`."""

    challenger: str
    stages: tuple[Stage, ...]
    champion_moves: bool


@dataclass(frozen=True, slots=True)
class NoDescent:
    """There is nothing to leave any more, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ends:
    """The two versions of a rollback."""

    left: str
    target: str


def descent(record: RollbackRecord, aliases: Mapping[str, str], percent: int | None) -> Descent | NoDescent:
    """The way from what the registry names now; `percent` is the share that the challenger has, if any."""
    champion, challenger = aliases.get(Alias.CHAMPION), aliases.get(Alias.CHALLENGER)
    shares = _shares(record)
    if champion == record.from_version:
        stages = tuple(Stage(share, ALL_PERCENT - share) for share in shares)
        return Descent(record.to_version, stages, champion_moves=True)
    if champion == record.to_version and challenger == record.from_version:
        lower = [share for share in shares if share < (percent or 0)]
        return Descent(record.from_version, tuple(Stage(s, s) for s in lower), champion_moves=False)
    if champion == record.to_version:
        return NoDescent(f"version {champion} answers alone already")
    return NoDescent(f"alias champion names {champion or 'nothing'} by now")


def remaining(stages: Sequence[Stage], step: str) -> tuple[Stage, ...]:
    """The stages after the last one that was noted as reached."""
    if not step.startswith(_STAGE):
        return tuple(stages)
    reached = int(step.removeprefix(_STAGE))
    return tuple(stage for stage in stages if stage.share < reached)


def is_stage(step: str) -> bool:
    return step.startswith(_STAGE)


def stage_seconds(record: RollbackRecord) -> float:
    given = record.options.get("stage_seconds")
    return USUAL_STAGE_SECONDS if given is None else float(given)


def _shares(record: RollbackRecord) -> tuple[int, ...]:
    """Falling, between all and nothing."""
    given = record.options.get("stages") or USUAL_SHARES
    return tuple(sorted({int(share) for share in given if 0 < int(share) < ALL_PERCENT}, reverse=True))


def ends(aliases: Mapping[str, str], percent: int | None, version: str | None) -> Ends | NoDescent:
    """From which version to which: a challenger with a share goes before the champion itself does."""
    champion, challenger = aliases.get(Alias.CHAMPION), aliases.get(Alias.CHALLENGER)
    if champion is None:
        return NoDescent("there is no champion to roll back")
    if challenger not in (None, champion) and percent and version in (None, champion):
        assert challenger is not None
        return Ends(challenger, champion)
    target = version or aliases.get(Alias.PREVIOUS)
    if target is None:
        return NoDescent("there is no earlier healthy version; name one")
    if target == champion:
        return NoDescent(f"version {champion} answers already")
    return Ends(champion, target)
