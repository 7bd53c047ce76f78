"""One metric of a stage: its verdict, one sentence, and the numbers behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from flows.rollout.policy import MetricName
from serving.store.text import JsonValue


class Verdict(StrEnum):
    SUCCESS = "success"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURED = "not_measured"


@dataclass(frozen=True, slots=True)
class Measurement:
    metric: MetricName
    verdict: Verdict
    reason: str
    evidence: Mapping[str, JsonValue]

    def as_json(self) -> dict[str, Any]:
        return {
            "name": str(self.metric),
            "verdict": str(self.verdict),
            "message": self.reason,
            "evidence": dict(self.evidence),
        }
