"""Rollbacks from the version that a rollout promotes, and its ejections, as the store knows them.

One laid before the rollout was asked for is lifted by it; one laid since ends it.
"""

from sqlalchemy import Engine

from serving.core.model import Alias
from serving.store import overrides
from serving.store.overrides import Override
from serving.store.rollouts import Rollout


def since_asked(engine: Engine, rollout: Rollout) -> Override | None:
    """The rollback from this version since the rollout was asked for, whether it is over or not."""
    return _laid_since(engine, rollout, Alias.CHAMPION)


def ejection_since_asked(engine: Engine, rollout: Rollout) -> str | None:
    """Why serving ejected this version as challenger.

    One that stands counts whenever it was laid: an older one was lifted, and clocks may be stepped back.
    """
    found = in_force(engine, rollout, Alias.CHALLENGER) or _laid_since(engine, rollout, Alias.CHALLENGER)
    return found.reason if found is not None else None


def in_force(engine: Engine, rollout: Rollout, role: Alias = Alias.CHAMPION) -> Override | None:
    """What keeps this version from answering as `role`."""
    key = (rollout.model, role, rollout.version)
    active = overrides.active(engine)
    return next((o for o in active if (o.model, o.role, o.not_version) == key), None)


def lift(engine: Engine, rollout: Rollout, *roles: Alias) -> None:
    """Promoting a version on purpose ends an earlier rollback from it, or ejection of it."""
    for role in roles or (Alias.CHAMPION, Alias.CHALLENGER):
        if (standing := in_force(engine, rollout, role)) is not None:
            overrides.end(engine, standing, f"promoted again by {rollout.requested_by}")


def _laid_since(engine: Engine, rollout: Rollout, role: Alias) -> Override | None:
    last = overrides.last_laid(engine, rollout.model, role)
    if last is None or last.not_version != rollout.version or last.laid_at < rollout.created_at:
        return None
    return last
