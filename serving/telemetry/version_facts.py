"""What labels of a version mean: the model's type from its tags, class names from its description."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine

from serving.core.clock import Clock
from serving.core.errors import StoreUnavailable
from serving.core.model import Tag, VersionRef
from serving.followed import FollowedModel
from serving.store import reports
from serving.store.version_reports import DESCRIPTION
from serving.telemetry.joiner import Facts

_REMEMBER_SECONDS = 60.0
_MAX_VERSIONS = 500


class VersionFacts:
    """Confined to the joiner's thread; of the event loop's models it only reads references."""

    def __init__(self, engine: Engine, models: Mapping[str, FollowedModel], clock: Clock) -> None:
        self._engine = engine
        self._models = models
        self._clock = clock
        self._classes: dict[VersionRef, tuple[float, Sequence[str]]] = {}

    def of(self, ref: VersionRef) -> Facts:
        model = self._models.get(ref.model)
        tags: Mapping[str, str] = model.registered.tags if model is not None and model.registered else {}
        return Facts(tags.get(Tag.MODEL_TYPE), self._classes_of(ref))

    def _classes_of(self, ref: VersionRef) -> Sequence[str]:
        asked_at, known = self._classes.get(ref, (float("-inf"), ()))
        if self._clock.monotonic() - asked_at < _REMEMBER_SECONDS:
            return known
        if len(self._classes) >= _MAX_VERSIONS:
            self._classes.clear()
        try:
            report = reports.latest(self._engine, DESCRIPTION, ref.model, ref.version)
        except StoreUnavailable:
            return known
        told: Any = report.body.get("told") if report is not None else None
        labels = told.get("labels") if isinstance(told, Mapping) else None
        classes = tuple(str(label) for label in labels or ())
        self._classes[ref] = (self._clock.monotonic(), classes)
        return classes
