"""What the other workers of a server hold and counted of each version; pure, over what they told."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from serving.core.model import VersionRef
from serving.fleet.channel import Told
from serving.pool import LoadedVersion
from serving.telemetry.metrics import Tally

NOTHING = Tally()


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """One version in the other workers: judged answers, bytes in memory, and whether any has it there."""

    tally: Tally = NOTHING
    cost_bytes: int = 0
    is_awake: bool = False

    def __add__(self, other: "Elsewhere") -> "Elsewhere":
        return Elsewhere(
            self.tally + other.tally, self.cost_bytes + other.cost_bytes, self.is_awake or other.is_awake
        )


def told_of(loaded: Iterable[LoadedVersion], tallies: Mapping[VersionRef, Tally]) -> list[dict[str, Any]]:
    """What one worker tells the others."""
    here = {version.ref: version for version in loaded}
    return [
        {
            "model": ref.model,
            "version": ref.version,
            "answers": tallies.get(ref, NOTHING).answers,
            "failures": tallies.get(ref, NOTHING).failures,
            "cost_bytes": here[ref].loading.cost_bytes if ref in here and here[ref].is_awake else 0,
            "is_awake": ref in here and here[ref].is_awake,
        }
        for ref in here.keys() | tallies.keys()
    ]


def elsewhere(told: Iterable[Told]) -> dict[VersionRef, Elsewhere]:
    """The sums over all that told."""
    found: dict[VersionRef, Elsewhere] = {}
    for entry in (entry for worker in told for entry in worker.get("versions", ())):
        ref = VersionRef(entry["model"], entry["version"])
        tally = Tally(entry["answers"], entry["failures"])
        here = Elsewhere(tally, entry["cost_bytes"], entry["is_awake"])
        found[ref] = found.get(ref, Elsewhere()) + here
    return found
