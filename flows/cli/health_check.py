"""The health check of the flows, made by a command: what it measures is kept as if the minutely one had."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from flows.cli.client import ServingClient
from flows.cli.console import warn
from flows.cli.errors import CommandFailed
from flows.cli.orchestration import orchestration
from flows.cli.waiting import wait_until
from flows.wiring import Wiring, wired
from serving.core.health import Level, Status
from serving.store import levels
from serving.store.database import check
from serving.store.levels import StoredLevel

# Serving reads the levels once a second.
_SHOWN_WITHIN_SECONDS = 5.0

_Key = tuple[str, Level]
Checked = Mapping[_Key, StoredLevel]


def check_now(model: str | None) -> tuple[list[str], Checked]:
    """What the check says of each model, or of one, and the levels that it measured.

    Raises `RegistryUnavailable` and `StoreUnavailable`.
    """
    # Imported here: it brings Prefect, which takes seconds, and the command without it asks serving alone.
    from flows.check_health import checked, critical_event

    with wired() as wiring:
        check(wiring.engine)
        before = _stored(wiring)
        said = checked(wiring, model)
        measured = {key: level for key, level in _stored(wiring).items() if level != before.get(key)}
        for (name, level), stored in measured.items():
            if level is Level.FUNCTIONAL and _has_turned(stored, before.get((name, level))):
                event = critical_event(name, str(stored.version), stored.report.message)
                _tell(wiring, event, stored.report.checked_at)
    return said, measured


def shown(serving: ServingClient, model: str | None, measured: Checked) -> dict[str, Any]:
    """Serving's health, with what was measured in it; as it is where serving does not take that up."""
    params = {"model": model} if model else None
    body: dict[str, Any] = {}

    def is_whole() -> bool:
        body.update(serving.get("/api/v2/model-health", params))
        return not any(_is_behind(entry, measured) for entry in body.get("models", []))

    if not wait_until(is_whole, _SHOWN_WITHIN_SECONDS):
        warn("serving does not show all of it yet; ask again without --now")
    return body


def _stored(wiring: Wiring) -> dict[_Key, StoredLevel]:
    return {(stored.model, stored.level): stored for stored in levels.all_levels(wiring.engine)}


def _has_turned(now: StoredLevel, before: StoredLevel | None) -> bool:
    was_critical = before is not None and before.report.status is Status.CRITICAL
    return now.report.status is Status.CRITICAL and not was_critical and now.version is not None


def _tell(wiring: Wiring, event: Mapping[str, Any], at: datetime | None) -> None:
    """What a run of the flow would tell Prefect, once: the next one finds the level critical already."""
    occurred = (at or wiring.clock.now()).isoformat()
    try:
        with orchestration(wiring.settings) as prefect:
            prefect.post_event({"id": str(uuid4()), "occurred": occurred, **event})
    except CommandFailed as error:
        warn(f"{error.problem}; nothing is rolled back for it: 'signalbox rollback' does that")


def _is_behind(entry: Mapping[str, Any], measured: Checked) -> bool:
    """Whether a served model is shown with an older level than was measured of that version."""
    for (model, level), stored in measured.items():
        if model != entry.get("model") or stored.version not in (None, entry.get("version")):
            continue
        told = (entry.get("levels") or {}).get(level, {}).get("checked_at")
        checked_at = stored.report.checked_at
        if checked_at is not None and (told is None or datetime.fromisoformat(told) < checked_at):
            return True
    return False
