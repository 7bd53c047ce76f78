"""Tag `signalbox.health`: the last known health of a champion's version, where MLflow's pages show it.

Written on change only. Serving tells the levels it owns, the store those of the flows. Called by
`check-health`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from flows.wiring import Wiring
from serving.core.errors import NotServed, RegistryUnavailable
from serving.core.health import Level, LevelReport, Status, aged, overall
from serving.core.model import Alias, Tag, VersionRef
from serving.store import levels
from serving.store.registry import RegisteredModel
from serving.store.text import read_optional_time

_INTERVAL_SECONDS = 60.0
_OF_SERVING = (Level.BASIC, Level.OPERATIONAL)


def health_tagged(wiring: Wiring, serving: httpx.Client, models: list[RegisteredModel]) -> Iterator[str]:
    """One sentence for each tag that was written, or could not be."""
    try:
        told = _told(serving)
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        yield f"health tags are left as they are: serving does not tell its health: {error or repr(error)}"
        return
    for model in models:
        champion = model.aliases[Alias.CHAMPION]
        entry = told.get(model.name)
        if entry is None or entry["version"] != champion:
            continue
        try:
            yield from _tagged(wiring, VersionRef(model.name, champion), entry["levels"])
        except (RegistryUnavailable, NotServed) as error:  # the others have their turn
            yield f"{model.name}: health tag not written: {error}"


def _told(serving: httpx.Client) -> dict[str, Mapping[str, Any]]:
    """What serving says of each model it serves."""
    answer = serving.get("/api/v2/model-health").raise_for_status()
    return {entry["model"]: entry for entry in answer.json()["models"]}


def _tagged(wiring: Wiring, ref: VersionRef, told: Mapping[str, Any]) -> Iterator[str]:
    status = _status(wiring, ref, told)
    if status is Status.UNKNOWN:  # nothing is known that the tag does not say
        return
    shown = wiring.registry.version(ref).tags.get(Tag.HEALTH)
    if shown != str(status):
        wiring.registry.set_version_tag(ref, Tag.HEALTH, str(status))
        yield f"{ref.model}: health of version {ref.version} is {status}, was {shown or 'not told'}"


def _status(wiring: Wiring, ref: VersionRef, told: Mapping[str, Any]) -> Status:
    """The worst of all levels that were measured on this version."""
    ours = [_report(told[level]) for level in _OF_SERVING if level in told]
    now, stored = wiring.clock.now(), levels.all_levels(wiring.engine)
    flows = [
        aged(level.report, now, _INTERVAL_SECONDS)
        for level in stored
        if level.model == ref.model and level.version in (None, ref.version)
    ]
    return overall([*ours, *flows])


def _report(told: Mapping[str, Any]) -> LevelReport:
    return LevelReport(Status(told["status"]), told["message"], read_optional_time(told["checked_at"]))
