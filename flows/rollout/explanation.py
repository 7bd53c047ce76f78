"""What MLflow keeps of a rollout that has ended: tags and description of its version."""

import logging

from serving.core.errors import NotServed
from serving.core.model import Alias, Tag, VersionRef
from serving.store import rollouts
from serving.store.registry import Registry
from serving.store.rollouts import Rollout

log = logging.getLogger(__name__)

_MARK = "Signalbox:"


def explain(registry: Registry, ref: VersionRef, rollout: Rollout) -> None:
    """The verdict is written last: as long as it is not there, the rest is written again."""
    tags, verdict = registry.version(ref).tags, f"{rollout.state}: {rollout.reason}"[:4900]
    if (tags.get(Tag.ROLLOUT), tags.get(Tag.VERDICT)) == (rollout.id, verdict):
        return
    evidence = rollout.evidence or {}
    verdicts = (evidence.get("verdict"), evidence.get("benchmark", {}).get("verdict"))
    if rollout.state is rollouts.State.REFUSED and "failed" in verdicts:
        registry.set_version_tag(ref, Tag.VALIDATION, "failed")
    if rollout.state is not rollouts.State.PROMOTED:
        registry.set_version_description(ref, _described(registry.version(ref).description, rollout))
    _show_stage(registry, ref, rollout)
    registry.set_version_tag(ref, Tag.ROLLOUT, rollout.id)
    registry.set_version_tag(ref, Tag.VERDICT, verdict)


def _show_stage(registry: Registry, ref: VersionRef, rollout: Rollout) -> None:
    """The stage at which a staged rollout ended, and what share of the traffic is left."""
    if rollout.status is None or rollout.spec is None:
        return
    stage = f"{rollout.status['stage'] + 1} of {len(rollout.spec['stages'])}"
    registry.set_version_tag(ref, Tag.STAGE, stage)
    is_champion = registry.alias(rollout.model, Alias.CHAMPION) == rollout.version
    registry.set_version_tag(ref, Tag.TRAFFIC_PERCENT, "100" if is_champion else "0")
    if is_champion:
        _relieve(registry, rollout)


def _relieve(registry: Registry, rollout: Rollout) -> None:
    """No share of the traffic is left to show on the champion before."""
    before = (rollout.restore_point or {}).get("champion")
    if before is None:
        return
    ref = VersionRef(rollout.model, before)
    try:
        if registry.version(ref).tags.get(Tag.TRAFFIC_PERCENT, "0") != "0":
            registry.set_version_tag(ref, Tag.TRAFFIC_PERCENT, "0")
    except NotServed as error:
        log.info("champion_before_is_gone rollout=%s reason=%s", rollout.id, error)


def _described(description: str, rollout: Rollout) -> str:
    """The description somebody wrote, with our last verdict under it instead of an earlier one."""
    own = description.partition(_MARK)[0].rstrip()
    when = rollout.finished_at.isoformat(timespec="seconds") if rollout.finished_at else ""
    said = rollout.state.replace("_", " ")
    return f"{own}\n\n{_MARK} {said} {when}: {rollout.reason}".strip()[:4900]
