"""What was measured of a candidate, and of the champion beside it; no judgement.

Filled step by step by `flows.catalog.measure` in a process of its own, read by `flows.catalog.checks`.
None stands for what was not looked at or not reached.
"""

from dataclasses import dataclass
from enum import StrEnum

from serving.core.model import TensorSpec
from serving.formats.selftest import SelfTest


class Side(StrEnum):
    CANDIDATE = "candidate"
    CHAMPION = "champion"


class Source(StrEnum):
    """Where inputs come from, best first. Zeros are ours; all others somebody recorded."""

    EVALUATION = "evaluation set"
    GOLDEN = "golden set"
    EXAMPLE = "input example"
    CHAMPION = "champion's example"
    ZEROS = "zeros"


class Metric(StrEnum):
    ACCURACY = "accuracy"
    ERROR = "mean absolute error"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version in memory, or in `problem` why it is not. `grown_bytes` is what loading it took."""

    version: str
    problem: str | None = None
    format: str | None = None
    digest: str | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    seconds: float = 0.0
    grown_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from one side: an exception, or outputs with what is wrong about them.

    `off_contract` is what the champion's callers would miss in an answer of the candidate.
    """

    error: str | None = None
    out_of_spec: str | None = None
    off_contract: str | None = None
    non_finite: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """The same inputs given to both sides; `champion` is None where there is none to ask."""

    source: Source
    rows: int
    candidate: Answer
    champion: Answer | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two ways to the same answer, per side: what differs between them, None where they agree."""

    source: Source
    rows: int
    candidate: str | None
    champion: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """Results on the evaluation set, over the `rows` of `total` that both sides answered in time.

    `problem` says why there is no score, `champion_problem` why there is none of the champion.
    """

    metric: Metric | None = None
    rows: int = 0
    total: int = 0
    candidate: float | None = None
    champion: float | None = None
    problem: str | None = None
    champion_problem: str | None = None


@dataclass(frozen=True, slots=True)
class Quantiles:
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of single calls, the champion's taken in turn with the candidate's."""

    source: Source
    calls: int
    candidate: Quantiles
    champion: Quantiles | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What the measuring process does now; what it died of, should it die."""

    side: Side
    doing: str


@dataclass(frozen=True, slots=True)
class Facts:
    """`score` is None where no evaluation set is declared. `interrupted` says how the measuring process
    ended if it did not finish; `step` is then what it was doing.
    """

    candidate: Loaded | None = None
    champion: Loaded | None = None
    self_test: SelfTest | None = None
    trials: tuple[Trial, ...] = ()
    batch: Comparison | None = None
    repeat: Comparison | None = None
    score: Score | None = None
    latency: Latency | None = None
    peak_bytes: int = 0
    step: Step | None = None
    interrupted: str | None = None
