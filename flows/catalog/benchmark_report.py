"""The report of one benchmark: verdict, ratings, and both versions' figures with the host they were taken on.

Made by `flows.catalog.benchmark`, shown by `flows.catalog.comparison`, kept by `flows.catalog.baseline`.
As JSON the candidate's own figures stand at the top, where later readers of the version look for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from flows.catalog.facts import Source, Step
from flows.catalog.host import Host
from flows.catalog.limits import BenchmarkPolicy
from flows.catalog.performance import Estimate, Findings, Gpu, Performance, Statistic
from flows.catalog.rating import Rating, overall, rated
from flows.catalog.verdict import Verdict

MEASURED = "measured"
DECLARED = "declared"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkReport:
    """`champion` is the version measured beside it, None where there was none."""

    model: str
    version: str
    verdict: Verdict
    checks: tuple[Rating, ...]
    candidate: Performance
    champion: Performance | None = None
    ratios: Mapping[Statistic, Estimate] = field(default_factory=dict)
    source: Source | None = None
    is_stable: bool | None = None
    gpu: Gpu | None = None
    interrupted: str | None = None
    is_late: bool = False
    step: Step | None = None
    accuracy: float | None = None
    host: Host
    policy: BenchmarkPolicy
    created_at: datetime
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the version may be promoted; neither a warning nor a gap stands in its way."""
        return self.verdict is not Verdict.FAILED

    @property
    def is_approved(self) -> bool:
        """Whether something was measured and nothing failed."""
        return self.verdict in (Verdict.PASSED, Verdict.WARNING)

    @property
    def reasons(self) -> tuple[str, ...]:
        return self._messages(Verdict.FAILED)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._messages(Verdict.WARNING)

    @property
    def reason(self) -> str:
        """One sentence for a notice: why it failed, or that it did not."""
        return "; ".join(self.reasons) or f"benchmark {self.verdict}".replace("_", " ")

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values; `from_json` reads them back."""
        values: dict[str, Any] = _REPORTS.dump_python(self, mode="json")
        own = values.pop("candidate")
        values["host"]["id"] = self.host.id
        throughput = {"throughput_per_second": self.candidate.throughput_per_second}
        return {**own, **values, **throughput, "origin": MEASURED}

    def judged_by(self, policy: BenchmarkPolicy) -> "BenchmarkReport":
        """The same measurement under another policy's limits."""
        checks = rated(self.findings, policy)
        return replace(self, checks=checks, verdict=overall(checks), policy=policy)

    @property
    def findings(self) -> Findings:
        """What was measured, as it is judged."""
        return Findings(
            candidate=self.candidate,
            champion=self.champion,
            ratios=self.ratios,
            source=self.source,
            is_stable=self.is_stable,
            gpu=self.gpu,
            interrupted=self.interrupted,
            is_late=self.is_late,
            step=self.step,
        )

    def _messages(self, verdict: Verdict) -> tuple[str, ...]:
        said = [
            f"{each.name.replace('_', ' ')}: {each.message}"
            for each in self.checks
            if each.verdict is verdict
        ]
        return tuple(dict.fromkeys(said))


_REPORTS = TypeAdapter(BenchmarkReport)
_OWN = {each.name for each in fields(Performance)}


def from_json(values: Mapping[str, Any]) -> BenchmarkReport:
    """What `as_json` made, read back from the store."""
    own = {name: values[name] for name in _OWN if name in values}
    host = {name: value for name, value in values["host"].items() if name != "id"}
    rest = {name: value for name, value in values.items() if name not in _OWN - {"version"}}
    known = {each.name for each in fields(BenchmarkReport)}
    return _REPORTS.validate_python(
        {name: value for name, value in rest.items() if name in known} | {"candidate": own, "host": host}
    )
