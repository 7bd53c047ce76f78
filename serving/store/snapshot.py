"""What a restore point holds of a model, its traffic and the system: pure, from what was read to JSON.

Three parts: `model` (aliases, versions with digests and metadata, tags), `traffic` (the tag), `system`
(settings without secrets, policies, drift reference, replicas and what they had loaded).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from serving.core.model import Tag
from serving.store.registry import ModelVersion, RegisteredModel
from serving.store.text import JsonValue
from serving.store.workers import Beat

# Of the many versions a model may have, the newest; those that an alias names are always among them.
NEWEST_VERSIONS = 50
# They change by themselves, so that two points never agree on them.
_EVER_DIFFERENT = frozenset({"beat_at", "probed_at"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """What was read of one model. `digests` are by version, of versions whose tags name none;
    `baseline` is the functional baseline of the champion.
    """

    registered: RegisteredModel
    versions: Sequence[ModelVersion]
    digests: Mapping[str, str]
    policies: Mapping[str, Mapping[str, JsonValue]]
    baseline: Mapping[str, JsonValue] | None
    beats: Sequence[Beat]
    settings: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not the same. `path` is dotted; None stands for a value that is not there."""

    path: str
    then: JsonValue
    now: JsonValue

    def as_json(self) -> dict[str, JsonValue]:
        return {"path": self.path, "then": self.then, "now": self.now}


def snapshot(captured: Captured) -> dict[str, JsonValue]:
    """The state that a restore point keeps."""
    registered = captured.registered
    kept = worth_keeping(registered, captured.versions)
    versions = {one.ref.version: _version(one, captured.digests) for one in kept}
    return {
        "model": {
            "aliases": dict(registered.aliases),
            "tags": {name: value for name, value in registered.tags.items() if name != Tag.TRAFFIC},
            "description": registered.description,
            "versions": versions,
        },
        "traffic": {"tag": registered.tags.get(Tag.TRAFFIC)},
        "system": {
            "settings": dict(captured.settings),
            "policies": {name: dict(body) for name, body in captured.policies.items()},
            "drift_reference": {
                "evaluation_set": registered.tags.get(Tag.EVALUATION_SET),
                "functional_baseline": captured.baseline,
            },
            "replicas": [_replica(beat, registered.name) for beat in captured.beats],
        },
    }


def worth_keeping(registered: RegisteredModel, versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    """The newest versions, oldest first, and those that an alias names."""
    named = set(registered.aliases.values())
    newest = {one.ref.version for one in versions[-NEWEST_VERSIONS:]}
    return [one for one in versions if one.ref.version in named | newest]


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """What changed between two states, in the order of the paths."""
    before, after = dict(_flat(then)), dict(_flat(now))
    paths = sorted(before.keys() | after.keys())
    return [
        Difference(".".join(path), before.get(path), after.get(path))
        for path in paths
        if path[-1] not in _EVER_DIFFERENT and before.get(path) != after.get(path)
    ]


def public_settings(settings: BaseSettings) -> dict[str, JsonValue]:
    """A process's settings by name, without secrets: those that hold one, and passwords inside URLs."""
    shown: dict[str, JsonValue] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            continue
        is_plain = value is None or isinstance(value, bool | int | float)
        shown[name] = value if is_plain else _without_password(str(value))
    return shown


def _without_password(text: str) -> str:
    try:
        parts = urlsplit(text)
        if parts.password is None:
            return text
    except ValueError:  # no URL at all
        return text
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:…@{host}"))


def _version(version: ModelVersion, digests: Mapping[str, str]) -> dict[str, JsonValue]:
    number = version.ref.version
    return {
        "digest": version.tags.get(Tag.DIGEST) or digests.get(number),
        "source": version.source,
        "run_id": version.run_id,
        "created_ms": version.created_ms,
        "tags": dict(version.tags),
        "description": version.description,
    }


def _replica(beat: Beat, model: str) -> dict[str, JsonValue]:
    served = beat.models.get(model)
    proof = served.proof if served is not None else None
    return {
        "worker": beat.worker,
        "url": beat.url,
        "beat_at": beat.beat_at.isoformat(),
        "champion": served.champion if served is not None else None,
        "digest": proof.digest if proof is not None else None,
        "probed_at": proof.started_at.isoformat() if proof is not None else None,
        "loaded": {name: other.champion for name, other in sorted(beat.models.items())},
    }


def _flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], JsonValue]]:
    """Leaves by path. Replicas go by their name, because their order says nothing."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(inner, (*path, str(name)))
    elif path[-1:] == ("replicas",) and isinstance(value, list):
        for replica in value:
            yield from _flat(replica, (*path, str(replica["worker"])))
    elif value != {}:
        yield path, value
