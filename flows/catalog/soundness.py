"""Whether a version could answer today: its files are there, are the ones on record, load, and pass golden.

The version is opened in a process of its own, `flows.catalog.soundness_probe`, with an end and a memory
limit: a file that crashes whoever loads it is a finding here. Asked before a gradual rollback and by the
scheduled check of restore points.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import httpx
from pydantic import TypeAdapter

from flows.catalog.confinement import run_confined
from flows.settings import FlowSettings
from serving.core.contract import Contract, compatibility
from serving.core.errors import ArtifactRefused, NotServed
from serving.core.model import Tag, TensorSpec, VersionRef
from serving.store.artifacts import ArtifactCache
from serving.store.registry import Registry

PROBE = "flows.catalog.soundness_probe"
_MEGABYTE = 1 << 20


class Verdict(StrEnum):
    SOUND = "sound"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """What the process found of one version. `problem` is None where it is sound."""

    problem: str | None
    said: str
    digest: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


FINDINGS = TypeAdapter(Finding)


@dataclass(frozen=True, slots=True)
class Soundness:
    """A verdict on one version with its reason; `contract` is what its callers must send and get."""

    verdict: Verdict
    reason: str
    contract: Contract | None = None

    @property
    def is_sound(self) -> bool:
        return self.verdict is Verdict.SOUND


Check = Callable[[VersionRef, str | None], Soundness]
"""Looks into a version; the digest is the one it must have, None where that is not known."""


def checker(settings: FlowSettings, client: httpx.Client, registry: Registry) -> Check:
    """A check with this home's artifact cache and the limits of a validation."""
    # Serving owns the cache and trims it; a limit matters only for that.
    cache = ArtifactCache(settings.home / "cache", client, registry, limit_bytes=0)

    def check(ref: VersionRef, digest: str | None) -> Soundness:
        """Raises `RegistryUnavailable`; everything that is wrong with the version is a verdict."""
        try:
            version = registry.version(ref)
            root = cache.fetch(version).root
        except (NotServed, ArtifactRefused) as gone:
            return Soundness(Verdict.BROKEN, str(gone))
        finding = _probed(root, settings)
        if finding.problem is not None:
            return Soundness(Verdict.BROKEN, finding.problem)
        for expected in (digest, version.tags.get(Tag.DIGEST)):
            if expected is not None and expected != finding.digest:
                problem = f"its files have digest {finding.digest[:12]}, on record is {expected[:12]}"
                return Soundness(Verdict.BROKEN, problem)
        return Soundness(Verdict.SOUND, finding.said, Contract(finding.inputs, finding.outputs))

    return check


def misfit(target: Soundness, present: Soundness) -> str | None:
    """What callers of the present version would miss of the target; None where nothing is known to be."""
    if target.contract is None or present.contract is None:
        return None
    found = compatibility(target.contract, present.contract)
    return "; ".join(found.breaks) or None


def _probed(root: Path, settings: FlowSettings) -> Finding:
    settings.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soundness-", dir=settings.home) as folder:
        found, log = Path(folder) / "finding.json", Path(folder) / "log"
        memory_bytes = int(settings.validation_memory_mb * _MEGABYTE)
        ending = run_confined(PROBE, [str(root), str(found)], log, settings.validation_seconds, memory_bytes)
        if ending is not None:
            return Finding(f"{ending.reason} while it was loaded and asked", "")
        return FINDINGS.validate_json(found.read_bytes())
