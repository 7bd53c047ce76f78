"""What MLflow's users see of a rollout while it goes on: tags on its version.

For people only, so a registry that does not take them is no matter.
"""

import logging

from flows.rollout.policy import Spec, shown
from flows.rollout.status import Status, Step
from serving.core.errors import NotServed, RegistryUnavailable
from serving.core.model import Tag, VersionRef
from serving.store.registry import Registry
from serving.store.rollouts import Rollout

log = logging.getLogger(__name__)

VERDICT_CHARACTERS = 4900


def show_step(registry: Registry, rollout: Rollout, step: str) -> None:
    """Before there are stages."""
    _show(registry, rollout, {Tag.VERDICT: f"open: {step}"})


def show_stage(registry: Registry, rollout: Rollout, spec: Spec, status: Status) -> None:
    """The stage that is observed or rests, its percent, and why it rests."""
    if status.step is not Step.OBSERVE and not status.step.is_resting:
        return
    percent = spec.percents[status.stage]
    said = f"open: {status.step} at {shown(percent)}"
    tags = {
        Tag.STAGE: f"{status.stage + 1} of {len(spec.percents)}",
        Tag.TRAFFIC_PERCENT: str(percent if status.entered else 0),
        Tag.VERDICT: f"{said}: {status.reason}" if status.reason else said,
    }
    _show(registry, rollout, tags)


def _show(registry: Registry, rollout: Rollout, tags: dict[Tag, str]) -> None:
    ref = VersionRef(rollout.model, rollout.version)
    try:
        for tag, value in ({Tag.ROLLOUT: rollout.id} | tags).items():
            registry.set_version_tag(ref, tag, value[:VERDICT_CHARACTERS])
    except (RegistryUnavailable, NotServed) as error:
        log.warning("rollout_not_shown rollout=%s reason=%s", rollout.id, error)
