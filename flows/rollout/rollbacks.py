"""Rollbacks from the version that a rollout promotes, as the store knows them.

One laid before the rollout was asked for is lifted by it; one laid since ends it.
"""

from sqlalchemy import Engine

from serving.core.model import Alias
from serving.store import overrides
from serving.store.overrides import Override
from serving.store.rollouts import Rollout


def since_asked(engine: Engine, rollout: Rollout) -> Override | None:
    """The rollback from this version since the rollout was asked for, whether it is over or not."""
    last = overrides.last_laid(engine, rollout.model, Alias.CHAMPION)
    if last is None or last.not_version != rollout.version or last.laid_at < rollout.created_at:
        return None
    return last


def in_force(engine: Engine, rollout: Rollout) -> Override | None:
    """The rollback that keeps this version from answering as champion."""
    key = (rollout.model, Alias.CHAMPION, rollout.version)
    active = overrides.active(engine)
    return next((o for o in active if (o.model, o.role, o.not_version) == key), None)


def lift(engine: Engine, rollout: Rollout) -> None:
    """Promoting a version on purpose ends an earlier rollback from it."""
    if (standing := in_force(engine, rollout)) is not None:
        overrides.end(engine, standing, f"promoted again by {rollout.requested_by}")
