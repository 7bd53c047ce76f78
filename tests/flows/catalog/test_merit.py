"""The rule against the champion on both sides of its borders, and what the evidence holds."""

from dataclasses import replace

import pytest

from flows.catalog.facts import Difference, Estimate, Facts, Loaded, Metric, Score, Similarity
from flows.catalog.merit import accuracy, similarity
from flows.catalog.policy import Doubt, ValidationPolicy
from flows.catalog.verdict import Verdict

PASSED, WARNING, FAILED, NOT_MEASURED = Verdict.PASSED, Verdict.WARNING, Verdict.FAILED, Verdict.NOT_MEASURED
DEFAULT = ValidationPolicy()
CHAMPION = Loaded("1")


def estimate(name: str, value: float) -> Estimate:
    return Estimate(name, value, value - 0.05, value + 0.05)


def score(
    value: float, low: float, high: float, metric: Metric = Metric.ACCURACY, *, is_same: bool = False
) -> Score:
    """A candidate at 0.9 whose difference to the champion is `value`, sure to lie from `low` to `high`."""
    own, other = (estimate("accuracy", 0.9),), (estimate("accuracy", 0.9),)
    return Score(metric, 100, 100, own, other, Difference(value, low, high, 0.5, 3, 2, is_same))


ALONE = Score(Metric.ACCURACY, 100, 1000, (estimate("accuracy", 0.9),))


def judged(
    found: Score | None, policy: ValidationPolicy = DEFAULT, champion: Loaded | None = CHAMPION
) -> Verdict:
    return accuracy(Facts(champion=champion, score=found), policy).verdict


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(score(0, 0, 0.01), PASSED, id="interval ends at the limit"),
        pytest.param(score(0.005, 0.002, 0.009), PASSED, id="worse, surely within"),
        pytest.param(score(-0.1, -0.2, 0.0), PASSED, id="better"),
        pytest.param(score(0.005, -0.01, 0.02), WARNING, id="measured within, not surely"),
        pytest.param(score(0.01, 0, 0.02), WARNING, id="measured at the limit, not surely"),
        pytest.param(score(0.011, 0, 0.03), FAILED, id="measured beyond, not surely"),
        pytest.param(score(0.03, 0.011, 0.05), FAILED, id="surely beyond"),
        pytest.param(score(0, -0.1, 0.1, is_same=True), PASSED, id="every answer the same"),
        pytest.param(score(1.0, 0.9, 1.05, Metric.ERROR), PASSED, id="error within"),
        pytest.param(score(1.04, 0.9, 1.2, Metric.ERROR), WARNING, id="error measured within"),
        pytest.param(score(1.06, 0.9, 1.2, Metric.ERROR), FAILED, id="error measured beyond"),
        pytest.param(score(1.2, 1.06, 1.3, Metric.REGRET), FAILED, id="regret surely beyond"),
        pytest.param(score(0.02, 0.011, 0.05, Metric.NEIGHBOURS), FAILED, id="an extractor's share"),
    ],
)
def test_difference_is_judged_by_its_interval_when_compared(found: Score, expected: Verdict) -> None:
    """Surely within passes, surely beyond fails, and what is neither goes by what was measured."""
    assert judged(found) is expected


@pytest.mark.parametrize("doubt", [Doubt.WARNING, Doubt.FAILED])
@pytest.mark.parametrize("value", [0.005, 0.015])
def test_doubt_is_decided_by_the_policy_when_it_says_so(doubt: Doubt, value: float) -> None:
    """Only what is uncertain: neither a sure pass nor a sure failure changes."""
    policy = ValidationPolicy(when_uncertain=doubt)
    assert judged(score(value, -0.01, 0.03), policy).value == doubt.value
    assert judged(score(0, 0, 0.005), policy) is PASSED
    assert judged(score(0.1, 0.05, 0.2), policy) is FAILED


@pytest.mark.parametrize(
    ("found", "policy", "expected"),
    [
        pytest.param(
            score(0.03, 0.011, 0.05), ValidationPolicy(max_accuracy_drop=0.05), PASSED, id="allowed"
        ),
        pytest.param(ALONE, ValidationPolicy(min_accuracy=0.9), PASSED, id="at the minimum"),
        pytest.param(ALONE, ValidationPolicy(min_accuracy=0.91), FAILED, id="below the minimum"),
        pytest.param(ALONE, DEFAULT, PASSED, id="no champion, no minimum"),
        pytest.param(
            replace(ALONE, metric=Metric.ERROR), ValidationPolicy(min_accuracy=0.1), FAILED, id="no accuracy"
        ),
        pytest.param(Score(problem="it has no rows"), DEFAULT, FAILED, id="declared but unusable"),
        pytest.param(None, DEFAULT, NOT_MEASURED, id="not declared"),
        pytest.param(None, ValidationPolicy(min_accuracy=0.5), FAILED, id="a minimum, and nothing declared"),
    ],
)
def test_score_is_judged_by_limit_and_minimum_when_given(
    found: Score | None, policy: ValidationPolicy, expected: Verdict
) -> None:
    """A limit that cannot be judged refuses; a declared set without a score is a failure, not a gap."""
    assert judged(found, policy) is expected


def test_score_explains_itself_when_not_compared() -> None:
    """Rows used, and why there is no comparison."""
    assert "on 100 of 1000 rows; no champion" in accuracy(Facts(score=ALONE), DEFAULT).message
    unfit = replace(ALONE, champion_problem="the champion raised on it")
    told = accuracy(Facts(champion=CHAMPION, score=unfit), DEFAULT).message
    assert "not compared: the champion raised on it" in told


def test_evidence_holds_every_figure_with_its_interval_when_scored() -> None:
    """By name, the champion's beside it: what the model's metadata shows of a version."""
    figures = tuple(estimate(name, 0.5) for name in ("accuracy", "precision", "recall", "f1"))
    found = replace(score(0.02, 0.011, 0.05), candidate=figures, champion=figures)
    evidence = accuracy(Facts(champion=CHAMPION, score=found), DEFAULT).evidence
    for name in ("accuracy", "precision", "recall", "f1"):
        for prefix in ("", "champion_"):
            held = [evidence[f"{prefix}{name}{end}"] for end in ("", "_low", "_high")]
            assert held == [0.5, 0.45, 0.55]
    assert (evidence["drop"], evidence["drop_low"], evidence["drop_high"]) == (0.02, 0.011, 0.05)
    assert (evidence["worse_rows"], evidence["better_rows"], evidence["rows"]) == (3, 2, 100)


@pytest.mark.parametrize(
    ("found", "expected", "said"),
    [
        (Similarity(50, 10, 0.5, 0.9, 0.8), PASSED, "mean cosine to its embeddings 0.900"),
        (Similarity(50, 10, 0.49, 0.9, 0.8), WARNING, "stored embeddings must be made again"),
        (Similarity(50, 10, 0.9), PASSED, "widths differ"),
        (None, NOT_MEASURED, "only extractors"),
    ],
)
def test_similarity_warns_when_neighbours_change(
    found: Similarity | None, expected: Verdict, said: str
) -> None:
    """Another space is no failure: what follows from it is said."""
    check = similarity(Facts(similarity=found), DEFAULT)
    assert check.verdict is expected
    assert said in check.message
