"""Whether restore points could be restored today, found out before they are needed. Called by `reconcile`.

Each pass asks the registry for the versions of all points, and looks into one version for real: the point
whose last look is longest ago, each about once a week, and never while a rollout is under way.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta

from flows.catalog.soundness import Check, checker
from flows.wiring import Wiring
from serving.core.model import VersionRef
from serving.store import restore_points, rollouts
from serving.store.outbox import Notice, Severity
from serving.store.restore_points import RestorePoint, Verdict

AGAIN_AFTER = timedelta(days=7)
_MAX_POINTS = 1000


def points_checked(wiring: Wiring, check: Check | None = None) -> Iterator[str]:
    """A sentence for each point whose verdict changed. Raises `RegistryUnavailable`, `StoreUnavailable`."""
    yield from _versions_there(wiring)
    if rollouts.open_rollouts(wiring.engine):
        return
    due = restore_points.due_for_check(wiring.engine, wiring.clock.now() - AGAIN_AFTER)
    if due is not None:
        yield from _looked_into(
            wiring, due, check or checker(wiring.settings, wiring.client, wiring.registry)
        )


def _versions_there(wiring: Wiring) -> Iterator[str]:
    """Points whose version was deleted from the registry, at one call per model."""
    by_model: dict[str, list[RestorePoint]] = defaultdict(list)
    for point in restore_points.listed(wiring.engine, limit=_MAX_POINTS):
        if point.champion is not None and point.verdict is not Verdict.UNUSABLE:
            by_model[point.model].append(point)
    for model, points in sorted(by_model.items()):
        known = {version.ref.version for version in wiring.registry.versions(model)}
        for point in points:
            if point.champion not in known:
                problem = f"version {point.champion} was deleted from the registry"
                yield from _judged(wiring, point, Verdict.UNUSABLE, problem)


def _looked_into(wiring: Wiring, point: RestorePoint, check: Check) -> Iterator[str]:
    if not point.is_intact:
        yield from _judged(wiring, point, Verdict.UNUSABLE, "its checksum does not fit what is stored")
        return
    if point.champion is None:
        yield from _judged(wiring, point, Verdict.UNUSABLE, "there was no champion then")
        return
    digest = point.state["model"]["versions"].get(point.champion, {}).get("digest")
    found = check(VersionRef(point.model, point.champion), digest)
    verdict = Verdict.RESTORABLE if found.is_sound else Verdict.UNUSABLE
    yield from _judged(wiring, point, verdict, found.reason)


def _judged(wiring: Wiring, point: RestorePoint, verdict: Verdict, reason: str) -> Iterator[str]:
    """Note a verdict; people are told when a point has become unusable, not at every look."""
    is_news = verdict is not point.verdict
    # That a model's first promotion has nothing before it is no fault.
    is_alarming = is_news and verdict is Verdict.UNUSABLE and point.champion is not None
    notice = _unusable(point, reason) if is_alarming else None
    restore_points.judge(wiring.engine, point, verdict, reason, wiring.clock.now(), notice)
    if is_news:
        yield f"{point.model}: restore point {point.id[:12]} is {verdict}: {reason}"


def _unusable(point: RestorePoint, reason: str) -> Notice:
    made = point.created_at.isoformat(timespec="seconds")
    return Notice(
        kind="restore_point_unusable",
        severity=Severity.WARNING,
        title=f"{point.model} can no longer be taken back to its restore point of {made}: {reason}",
        model=point.model,
        version=point.champion,
        facts={"restore_point": point.id, "reason": reason, "made_by": point.created_by},
        dedup_key=f"restore_point_unusable:{point.model}:{point.champion}",
    )
