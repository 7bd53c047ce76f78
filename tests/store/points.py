"""States and restore points for tests."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from serving.core.model import VersionRef
from serving.store.registry import ModelVersion, RegisteredModel
from serving.store.restore_points import Draft, Kind
from serving.store.snapshot import Captured, snapshot
from serving.store.text import JsonValue

MODEL = "digits"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def registered(tags: Mapping[str, str] | None = None, **aliases: str) -> RegisteredModel:
    return RegisteredModel(MODEL, 1, aliases, tags or {}, "reads digits")


def version(number: int, **tags: str) -> ModelVersion:
    named = {f"signalbox.{name}": value for name, value in tags.items()}
    ref = VersionRef(MODEL, str(number))
    return ModelVersion(ref, number, number, f"runs:/{number}", "", "READY", "", "anna", named)


def state(model: RegisteredModel, count: int = 3, **different: Any) -> dict[str, JsonValue]:
    captured: dict[str, Any] = {
        "registered": model,
        "versions": [version(number, digest=f"{number:064d}") for number in range(1, count + 1)],
        "digests": {},
        "policies": {},
        "baseline": None,
        "beats": [],
        "settings": {},
    }
    return snapshot(Captured(**captured | different))


def draft(point_id: str, of: Mapping[str, JsonValue], kind: Kind = Kind.BY_HAND) -> Draft:
    return Draft(id=point_id, model=MODEL, kind=kind, reason="before lunch", state=of, created_by="anna")
