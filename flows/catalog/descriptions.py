"""Descriptions on record: made once for a version, kept in the state store, made on demand where missing.

A version registered by hand has none until a flow or a command looks at it. It is made in a process of
its own, because a model that hangs or crashes while it is loaded must not take the caller with it.
"""

import json
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import httpx
import psutil
from sqlalchemy import Engine

from flows.catalog.confinement import run_confined
from flows.catalog.describe import NEXT_STEP, REFUSED
from flows.catalog.description import KIND, Description, from_json
from serving.core.errors import ArtifactRefused
from serving.core.model import VersionRef
from serving.store import reports, version_reports
from serving.store.artifacts import ArtifactCache
from serving.store.registry import ModelVersion, Registry
from serving.store.settings import StoreSettings

DEADLINE_SECONDS = 60.0
_MEMORY_RATIO = 0.9


def record(engine: Engine, ref: VersionRef, description: Description, now: datetime) -> None:
    """Keep a description as the version's latest."""
    kept = reports.Report(
        id=uuid4().hex,
        kind=KIND,
        model=ref.model,
        version=ref.version,
        verdict="partial" if description.notes else "described",
        created_at=now,
        body=description.as_json(),
    )
    reports.save(engine, kept)


def stored(engine: Engine, version: ModelVersion) -> Description | None:
    """The version's description on record, None where there is none."""
    found = version_reports.read(engine, version.ref.model, [version])[version.ref.version].description
    return from_json(found) if found else None


def described(root: Path, deadline_seconds: float = DEADLINE_SECONDS) -> Description:
    """Load and describe a model folder in a process of its own.

    Raises ArtifactRefused for a model that cannot be loaded, and for one that hangs, crashes or takes
    nearly all memory that is free.
    """
    with TemporaryDirectory(prefix="description-") as folder:
        answer, log = Path(folder) / "description.json", Path(folder) / "log"
        memory_bytes = int(psutil.virtual_memory().available * _MEMORY_RATIO)
        paths = (str(root), str(answer))
        ending = run_confined("flows.catalog.describe", paths, log, deadline_seconds, memory_bytes)
        if ending is not None:
            step = "validate the version to see what is wrong with it"
            raise ArtifactRefused(f"it could not be described: {ending.reason}", next_step=step)
        found = json.loads(answer.read_bytes())
    if REFUSED in found:
        raise ArtifactRefused(found[REFUSED], next_step=found[NEXT_STEP])
    return from_json(found)


class Descriptions:
    """Finds or makes the description of a registered version."""

    def __init__(
        self, settings: StoreSettings, engine: Engine, client: httpx.Client, registry: Registry
    ) -> None:
        self._engine = engine
        # Serving owns the cache and trims it; a limit matters only for that.
        self._cache = ArtifactCache(settings.home / "cache", client, registry, limit_bytes=0)

    def of(self, version: ModelVersion, now: datetime) -> Description:
        """From the store, else made and recorded.

        Raises:
            ArtifactRefused: the version's files cannot be fetched or loaded.
            RegistryUnavailable: MLflow, or its artifact proxy, did not answer.
            StoreUnavailable: the store did not answer.
        """
        found = stored(self._engine, version)
        if found is None:
            found = self.made(version)
            record(self._engine, version.ref, found, now)
        return found

    def made(self, version: ModelVersion) -> Description:
        """Made anew and not recorded."""
        return described(self._cache.fetch(version).root)
