"""Whether a request was withdrawn: the alias that asked for a rollout was deleted, or moved on."""

from serving.core.model import Alias
from serving.store.registry import Registry
from serving.store.rollouts import Rollout


def withdrawn(registry: Registry, rollout: Rollout) -> str | None:
    """What became of alias `challenger` since it asked for the rollout; None where it still does.

    Raises `RegistryUnavailable`.
    """
    if not rollout.was_challenger:
        return None
    named = registry.alias(rollout.model, Alias.CHALLENGER)
    if named == rollout.version:
        return None
    what = f"moved to {named}" if named else "deleted"
    return f"alias challenger was {what} since it was asked for"
