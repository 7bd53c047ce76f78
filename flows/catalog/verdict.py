"""What a check says, and what many checks say together. The words every report of validation uses."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

Evidence: TypeAlias = Mapping[str, bool | int | float | str | None]


class Verdict(StrEnum):
    """In rising order of what they mean for the whole: the last one present decides."""

    NOT_MEASURED = "not_measured"
    PASSED = "passed"
    WARNING = "warning"
    FAILED = "failed"


_WEIGHT = {verdict: weight for weight, verdict in enumerate(Verdict)}


class CheckName(StrEnum):
    """Every check, in the order of a report."""

    LOADS = "loads"
    COMPLETES = "completes"
    SELF_TEST = "self_test"
    CONTRACT = "contract"
    GOLDEN = "golden"
    ANSWERS = "answers"
    FINITE = "finite"
    BATCH_INVARIANCE = "batch_invariance"
    DETERMINISM = "determinism"
    ODD_INPUTS = "odd_inputs"
    PARITY = "parity"
    REPLAY = "replay"
    ACCURACY = "accuracy"
    SIMILARITY = "similarity"
    LATENCY = "latency"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Check:
    """One check's outcome: a sentence for people and the numbers behind it."""

    name: CheckName
    verdict: Verdict
    message: str
    evidence: Evidence = field(default_factory=dict)


def overall(checks: Iterable[Check]) -> Verdict:
    """The worst verdict. What was not measured weighs nothing: a check that is required and could not
    be measured says FAILED itself. Nothing measured at all is NOT_MEASURED, and no approval.
    """
    return worst(check.verdict for check in checks)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    return max(verdicts, key=_WEIGHT.__getitem__, default=Verdict.NOT_MEASURED)
