"""Two versions of a model side by side: gathered from registry, store and files, compared, shown.

What cannot be asked leaves its area unknown and a sentence in the notes; the comparison itself is
`serving.core.difference`, the same that model-info uses.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from flows.catalog.descriptions import Descriptions, record
from serving.core.difference import Area, Difference, Row, Value, difference
from serving.core.errors import ArtifactRefused, NotServed, RegistryUnavailable, StoreUnavailable
from serving.core.model import VersionRef
from serving.store import version_reports
from serving.store.database import check
from serving.store.registry import ModelVersion, Registry, Run
from serving.store.version_reports import VersionReports, facts_of

_WHY_UNKNOWN = {
    Area.METRICS: "never validated on an evaluation set, and no training metric was logged",
    Area.LATENCY: "never benchmarked",
    Area.PARAMETERS: "it has no run",
}
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Compared:
    """`notes` say what could not be asked."""

    model: str
    found: Difference
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        found = self.found
        return {
            "model": self.model,
            "old": found.old,
            "new": found.new,
            "changed": len(found.changed),
            "rows": [row.as_json() | {"changed": row.is_changed} for row in found.rows],
            "unknown": {str(area): list(versions) for area, versions in found.unknown.items()},
            "notes": list(self.notes),
        }


class Comparison:
    """Compares versions named by number or alias."""

    def __init__(self, registry: Registry, engine: Engine, descriptions: Descriptions) -> None:
        self._registry = registry
        self._engine = engine
        self._descriptions = descriptions
        self._notes: dict[str, None] = {}

    def of(self, model: str, old: str, new: str, now: datetime) -> Compared:
        """Raises NotServed for what is not there, naming what is, and RegistryUnavailable."""
        versions = [self._named(model, name) for name in (old, new)]
        reports = self._reports(model, versions)
        before, after = (
            facts_of(version, self._run(version), self._completed(version, reports, now))
            for version in versions
        )
        return Compared(model, difference(before, after), tuple(self._notes))

    def _named(self, model: str, name: str) -> ModelVersion:
        registered = self._registry.registered_model(model)
        number = registered.aliases.get(name, name)
        try:
            if not number.isdigit():
                raise NotServed(f"'{name}' is neither a version nor an alias")
            return self._registry.version(VersionRef(model, number))
        except NotServed:
            numbers = [version.ref.version for version in self._registry.versions(model)]
            what = f"version {name}" if name.isdigit() else f"alias '{name}'"
            exists = [*numbers, *sorted(registered.aliases)]
            raise NotServed(f"model '{model}' has no {what}", exists=exists) from None

    def _reports(self, model: str, versions: list[ModelVersion]) -> Mapping[str, VersionReports]:
        try:
            check(self._engine)
            return version_reports.read(self._engine, model, versions)
        except StoreUnavailable as error:
            self._notes[f"nothing measured is known: {error}"] = None
            return {}

    def _run(self, version: ModelVersion) -> Run | None:
        try:
            return self._registry.run(version.run_id) if version.run_id else None
        except (NotServed, RegistryUnavailable) as error:
            self._notes[f"run of version {version.ref.version}: {error}"] = None
            return None

    def _completed(
        self, version: ModelVersion, reports: Mapping[str, VersionReports], now: datetime
    ) -> VersionReports:
        """With a description made now where none is on record."""
        known = reports.get(version.ref.version, VersionReports())
        if known.description:
            return known
        try:
            description = self._descriptions.made(version)
        except (ArtifactRefused, RegistryUnavailable) as error:
            self._notes[f"files of version {version.ref.version}: {error}"] = None
            return known
        if reports:  # else the store is away, which is among the notes already
            with suppress(StoreUnavailable):
                record(self._engine, version.ref, description, now)
        return replace(known, description=description.as_json())


def cells(found: Difference, *, everything: bool) -> list[list[str]]:
    """Area, name, both values and what became of them; unchanged rows only with `everything`."""
    rows = found.rows if everything else found.changed
    return [[row.area, row.name, _text(row.before), _text(row.after), _became(row)] for row in rows]


def remarks(compared: Compared) -> Iterator[str]:
    """Lines under the table: what stayed the same, what is not known, and why."""
    found = compared.found
    same = len(found.rows) - len(found.changed)
    if same:
        yield f"unchanged: {same} values"
    for area, versions in found.unknown.items():
        who = " and ".join(f"version {number}" for number in versions)
        why = _WHY_UNKNOWN.get(area, "its files could not be described")
        yield f"{area} not compared: {who}: {why}"
    yield from (f"note: {note}" for note in compared.notes)


def _text(value: Value | None) -> str:
    if value is None:
        return "-"
    text = f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _became(row: Row) -> str:
    if not row.is_changed:
        return "" if row.before == row.after else "within noise" if row.ratio else "not measured"
    is_counted = row.area is Area.OPERATORS
    if row.before is None or (is_counted and not row.before):
        return "new"
    if row.after is None or (is_counted and not row.after):
        return "gone"
    return "changed" if row.ratio is None else f"{(row.ratio - 1) * 100:+.1f} %"
