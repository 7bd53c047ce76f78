"""What a version says in MLflow, and the order in which it is written there. Called by `register`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flows.catalog import presentation
from flows.catalog.declared import Declared
from flows.catalog.description import Description
from flows.catalog.discover import payload
from flows.catalog.examined import Examined, Task
from flows.catalog.tracking import Attempt, Facts, Logged, Tracking, VersionFacts, read_attempt
from serving.core.clock import Clock
from serving.core.digest import file_sha256
from serving.core.errors import NotServed
from serving.core.model import Tag
from serving.formats.mlmodel import FILE_NAME
from serving.store.registry import ModelVersion, Registry

_MEGABYTE = 1 << 20
_TOLD = frozenset(map(str, (Tag.AUTHOR, Tag.LABELS, Tag.LICENCE, Tag.SIBLING, Tag.TRAINING_DATASET)))
_OF_THE_BYTES = frozenset((Tag.DIGEST, Tag.SOURCE_DIGEST, Tag.MEMORY_MB))
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A model that is laid out in `task.root`, and everything there is to say of it.

    `said_before` is what the side file said when it was last taken.
    """

    task: Task
    found: Examined
    description: Description
    wanted: Declared
    name: str
    said_before: Mapping[str, Any] = field(default_factory=dict)


class Publisher:
    def __init__(self, tracking: Tracking, registry: Registry, clock: Clock, user: str) -> None:
        self._tracking = tracking
        self._registry = registry
        self._clock = clock
        self._user = user

    def attempt(self, id: str, model: str) -> Attempt:
        return self._tracking.attempt(id, model)

    def remove(self, attempt: str, model: str, keep_run_id: str | None) -> None:
        self._tracking.remove(read_attempt(attempt, model), keep_run_id)

    def publish(self, attempt: Attempt, publication: Publication, progress: Progress) -> str:
        """The number of the version; the oldest, should the same bytes have been registered meanwhile."""
        progress("logging", 0.4)
        logged = self._tracking.begin(attempt, self._run_facts(publication), self._now_ms())
        root = publication.task.root
        _name_in_file(root, logged)
        self._tracking.upload(logged, root, _share(root, progress))
        self._tracking.finish(logged, self._now_ms())
        progress("registering", 0.9)
        self._tracking.create_model(attempt.model)
        self._tag_model(publication)
        tags = self._stored(_version_tags(publication))
        facts = VersionFacts(tags=tags, description=presentation.page(publication.description))
        version = self._tracking.create_version(attempt.model, logged, facts)
        return self._settled(attempt, publication, version)

    def describe(self, version: ModelVersion, publication: Publication) -> None:
        """Bring what a registered version says in line with what is said of it now.

        Its bytes stay as they were logged, and so does what was measured of them.
        """
        self._tag_model(publication)
        tags = _version_tags(publication)
        taken_back = {*_TOLD, *publication.said_before.get("tags", {})} - tags.keys()
        for key in sorted(taken_back & version.tags.keys()):
            self._tracking.delete_version_tag(version.ref, self._registry.stored_tag(key))
        for key, value in tags.items():
            if key not in _OF_THE_BYTES and version.tags.get(key) != value:
                self._registry.set_version_tag(version.ref, key, value)
        page = presentation.page(publication.description)
        if version.description != page:
            self._registry.set_version_description(version.ref, page)
        if version.run_id and (metrics := _metrics(publication)):
            self._tracking.log_metrics(version.run_id, metrics, self._now_ms())

    def _settled(self, attempt: Attempt, publication: Publication, version: str) -> str:
        """Read back: two machines that registered the same bytes at once agree on the older version."""
        digest = publication.found.source_digest
        same = [v for v in self._registry.versions(attempt.model) if v.tags.get(Tag.SOURCE_DIGEST) == digest]
        if not any(found.ref.version == version for found in same):
            raise NotServed(f"version {version} of '{attempt.model}' is gone as soon as it was registered")
        if same[0].ref.version == version:
            return version
        self._tracking.delete_version(attempt.model, version)
        self._tracking.remove(attempt, same[0].run_id)
        return same[0].ref.version

    def _run_facts(self, publication: Publication) -> Facts:
        side, description = publication.wanted.side, publication.description
        params = {key: str(value) for key, value in side.params.items()}
        return Facts(
            run_name=publication.name,
            user=self._user,
            tags=self._stored({Tag.SOURCE_DIGEST: publication.found.source_digest or ""}),
            params=presentation.run_params(description) | params,
            metrics=_metrics(publication),
            dataset=description.told.training_dataset,
        )

    def _tag_model(self, publication: Publication) -> None:
        """What holds for every version of the model; left alone where nothing new is said."""
        model = publication.wanted.model
        present = self._registry.registered_model(model).tags
        for key, value in self._model_tags(publication).items():
            if present.get(key) != value:
                self._tracking.set_model_tag(model, self._registry.stored_tag(key), value)

    def _model_tags(self, publication: Publication) -> dict[str, str]:
        side = publication.wanted.side
        critical = None if side.critical is None else str(side.critical).lower()
        tags = {
            Tag.MODEL_TYPE: side.model_type,
            Tag.OWNER: side.owner,
            Tag.TEAM: side.team,
            Tag.CRITICAL: critical,
            Tag.EVALUATION_SET: self._evaluation(publication),
        }
        return {str(key): value for key, value in tags.items() if value is not None}

    def _evaluation(self, publication: Publication) -> str | None:
        declared = publication.wanted.evaluation
        if isinstance(declared, Path):
            return self._tracking.keep_evaluation(declared, file_sha256(declared))
        return declared

    def _stored(self, tags: dict[str, str]) -> dict[str, str]:
        """By the names under which this environment keeps them."""
        return {self._registry.stored_tag(key): value for key, value in tags.items() if value}

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _version_tags(publication: Publication) -> dict[str, str]:
    found, side = publication.found, publication.wanted.side
    tags: dict[str, str] = {key: _text(value) for key, value in side.tags.items()}
    tags |= presentation.version_tags(publication.description)
    tags |= {
        Tag.SOURCE_DIGEST: found.source_digest or "",
        Tag.DIGEST: found.digest or "",
        Tag.SIBLING: side.sibling or "",
        Tag.MEMORY_MB: f"{max(found.grown_bytes / _MEGABYTE, 0.1):.1f}",
    }
    baseline = side.baseline
    if baseline is not None and baseline.memory_mb is not None:
        tags[Tag.MEMORY_MB] = f"{baseline.memory_mb:g}"
    if baseline is not None and baseline.latency_p50_ms is not None:
        tags[Tag.LATENCY_P50_MS] = f"{baseline.latency_p50_ms:g}"
    return {str(key): value for key, value in tags.items() if value}


def _metrics(publication: Publication) -> dict[str, float]:
    """Those of training, and the baseline that somebody measured elsewhere."""
    baseline = publication.wanted.side.baseline
    told: dict[str, Any] = baseline.model_dump(exclude_none=True) if baseline is not None else {}
    measured = {f"baseline_{key}": float(value) for key, value in told.items()}
    return presentation.run_metrics(publication.description) | measured


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _name_in_file(root: Path, logged: Logged) -> None:
    """Which run and logged model the folder belongs to, where MLflow's readers look for it."""
    path = root / FILE_NAME
    content = yaml.safe_load(path.read_text())
    content |= {"run_id": logged.run_id, "model_id": logged.model_id}
    path.write_text(yaml.safe_dump(content))


def _share(root: Path, progress: Progress) -> Callable[[int], None]:
    whole = sum(file.stat().st_size for file in payload(root)) or 1
    sent = 0

    def uploaded(count: int) -> None:
        nonlocal sent
        sent += count
        progress("uploading", 0.4 + 0.5 * min(sent / whole, 1.0))

    return uploaded
