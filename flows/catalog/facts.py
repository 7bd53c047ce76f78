"""What was measured of a candidate, and of the champion beside it; no judgement.

Filled step by step by `flows.catalog.measure` in a process of its own, read by `flows.catalog.checks`.
None stands for what was not looked at or not reached.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from serving.core.model import TensorSpec
from serving.formats.selftest import SelfTest


class Side(StrEnum):
    """Whose turn it is. A sibling is a version that claims to be the candidate in another format."""

    CANDIDATE = "candidate"
    CHAMPION = "champion"
    SIBLING = "sibling"


class Source(StrEnum):
    """Where inputs come from, best first. Those from zeros on are ours; all others somebody recorded."""

    EVALUATION = "evaluation set"
    GOLDEN = "golden set"
    EXAMPLE = "input example"
    CHAMPION = "champion's example"
    LOGGED = "logged inputs"
    ZEROS = "zeros"
    NEGATIVE_ZEROS = "negative zeros"
    LARGE = "large values"
    HIGHEST = "highest values"
    LOWEST = "lowest values"
    SINGLE = "batch of one"
    MAXIMUM = "largest batch"
    EMPTY = "empty batch"


class Stage(StrEnum):
    """What part of the measurement runs; what dies in `ODD` has all else behind it."""

    MAIN = "main"
    ODD = "odd"


class Metric(StrEnum):
    """What a set is scored by. Of shares more is better, of the others less."""

    ACCURACY = "accuracy"
    NEIGHBOURS = "nearest-neighbour accuracy"
    ERROR = "mean absolute error"
    REGRET = "mean regret"

    @property
    def is_share(self) -> bool:
        return self in (Metric.ACCURACY, Metric.NEIGHBOURS)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version in memory, or in `problem` why it is not.

    `grown_bytes` is what loading it took, `peak_bytes` what the process grew by at most until its
    first answer, `has_golden` whether outputs were recorded with it.
    """

    version: str
    problem: str | None = None
    format: str | None = None
    digest: str | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    seconds: float = 0.0
    grown_bytes: int = 0
    peak_bytes: int = 0
    has_golden: bool = False


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
class Estimate:
    """A figure and the interval it lies in with the policy's confidence."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How much worse the candidate is than the champion on the same rows, with its interval.

    Of a share the drop, of an error or regret the ratio to the champion's. `chance` is how likely a
    difference as bad as this were between equals; `is_same` says that both gave the same answers.
    """

    value: float
    low: float
    high: float
    chance: float
    worse_rows: int
    better_rows: int
    is_same: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """Results on the evaluation set, over the `rows` of `total` that both sides answered in time.

    `problem` says why there is no score, `champion_problem` why there is none of the champion. The
    first estimate of a side is that of the metric.
    """

    metric: Metric | None = None
    rows: int = 0
    total: int = 0
    candidate: tuple[Estimate, ...] = ()
    champion: tuple[Estimate, ...] = ()
    difference: Difference | None = None
    problem: str | None = None
    champion_problem: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Similarity:
    """How alike the embeddings of both sides are; `cosine*` is None where their widths differ.

    `overlap` is the share of a row's `neighbours` nearest rows that both sides agree on.
    """

    rows: int
    neighbours: int
    overlap: float
    cosine_mean: float | None = None
    cosine_p05: float | None = None


@dataclass(frozen=True, slots=True)
class Kinship:
    """The candidate beside a sibling: `problem` where it could not be compared, else what differs."""

    name: str
    format: str | None = None
    problem: str | None = None
    differs: str | None = None
    largest: float = 0.0
    tolerance: float = 0.0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Replay:
    """Recent inputs asked again: the first finding of each kind, and on how many rows there was one.

    `agreement` is the share of rows that both sides classify alike; `shift` the median distance of
    predictions in terms of the champion's median size. Each is None where it does not apply.
    """

    rows: int = 0
    trial: Trial | None = None
    raised: int = 0
    champion_raised: int = 0
    non_finite: int = 0
    agreement: float | None = None
    shift: float | None = None
    compared: int = 0
    problem: str | None = None


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
    stage: Stage = Stage.MAIN


@dataclass(frozen=True, slots=True)
class Facts:
    """`score` is None where no evaluation set is declared, `replay` where none was asked for. `interrupted`
    says how the measuring process ended if it did not finish; `step` is then what it was doing.
    `odd_interrupted` says the same of an end among odd inputs, which leaves all other facts standing.
    """

    candidate: Loaded | None = None
    champion: Loaded | None = None
    self_test: SelfTest | None = None
    trials: tuple[Trial, ...] = ()
    odd: tuple[Trial, ...] = ()
    batch: Comparison | None = None
    repeat: Comparison | None = None
    score: Score | None = None
    similarity: Similarity | None = None
    kin: tuple[Kinship, ...] = ()
    replay: Replay | None = None
    latency: Latency | None = None
    peak_bytes: int = 0
    step: Step | None = None
    interrupted: str | None = None
    odd_interrupted: str | None = None
