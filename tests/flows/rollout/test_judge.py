"""The judge, tabulated: each metric on both sides of its limit, and the worst of them."""

from dataclasses import replace

import pytest

from flows.rollout.evidence import Evidence
from flows.rollout.judge import Shift, judge
from flows.rollout.measurement import Measurement, Verdict
from flows.rollout.policy import JudgePolicy, Kind, MetricName, read_policy
from serving.core.comparison import OutputTally, Tally
from serving.core.scored import Scored
from serving.core.window import WindowStats
from tests.flows.rollout.witness import equal, mixed, numbers, pairs, stats

POLICY = read_policy(None)
ALIKE = {"output": OutputTally(labels=1)}


def measurement(evidence: Evidence, metric: MetricName, kind: Kind | None = None) -> Measurement:
    judged = judge(evidence, read_policy(kind), kind)
    return next(each for each in judged.measurements if each.metric is metric)


def with_policy(**limits: object) -> JudgePolicy:
    return JudgePolicy.model_validate(POLICY.model_dump() | limits)


@pytest.mark.parametrize(
    ("champion", "challenger", "verdict"),
    [
        pytest.param(stats(0), stats(0), Verdict.NOT_MEASURED, id="nobody-asked"),
        pytest.param(stats(1000), stats(49), Verdict.INCONCLUSIVE, id="one-too-few"),
        pytest.param(stats(49), stats(1000), Verdict.INCONCLUSIVE, id="one-too-few-of-the-champion"),
        pytest.param(stats(1000), stats(50), Verdict.SUCCESS, id="just-enough"),
        pytest.param(stats(950), stats(50, faults=2), Verdict.SUCCESS, id="two-faults"),
        pytest.param(stats(950), stats(50, faults=3), Verdict.FAIL, id="three-faults"),
        pytest.param(stats(950, faults=60), stats(50, faults=3), Verdict.SUCCESS, id="as-the-champion"),
        pytest.param(stats(190), stats(10, faults=10), Verdict.FAIL, id="fails-before-samples-suffice"),
    ],
)
def test_errors_are_judged(champion: object, challenger: object, verdict: Verdict) -> None:
    evidence = Evidence(champion=champion, challenger=challenger)  # type: ignore[arg-type]
    assert measurement(evidence, MetricName.ERROR_RATE).verdict is verdict


def no_room(answered: int, overloaded: int) -> WindowStats:
    return stats(answered).plus(WindowStats(statuses={"overloaded": overloaded}))


@pytest.mark.parametrize(
    ("champion", "challenger", "verdict"),
    [
        pytest.param(no_room(1200, 0), stats(281, faults=280), Verdict.FAIL, id="challenger-alone"),
        pytest.param(no_room(600, 600), stats(200, faults=100), Verdict.SUCCESS, id="both"),
        pytest.param(no_room(600, 600), no_room(100, 100), Verdict.SUCCESS, id="both-by-callers"),
    ],
)
def test_requests_there_was_no_room_for_count_against_both_alike(
    champion: WindowStats, challenger: WindowStats, verdict: Verdict
) -> None:
    """A challenger that one request of 281 got an answer from has not simply had little traffic."""
    evidence = Evidence(champion=champion, challenger=challenger)
    assert measurement(evidence, MetricName.ERROR_RATE).verdict is verdict


def copies(count: int, *, failed: int = 0, other_ms: float = 4.0) -> Tally:
    found = pairs(0)
    for _ in range(count):
        found.add(ALIKE, champion_seconds=0.004, other_seconds=other_ms / 1000)
    found.failed = failed
    return found


@pytest.mark.parametrize(
    ("found", "metric", "verdict"),
    [
        pytest.param(copies(0), MetricName.ERROR_RATE, Verdict.NOT_MEASURED, id="none"),
        pytest.param(copies(49), MetricName.ERROR_RATE, Verdict.INCONCLUSIVE, id="one-too-few"),
        pytest.param(copies(50), MetricName.ERROR_RATE, Verdict.SUCCESS, id="enough"),
        pytest.param(copies(48, failed=2), MetricName.ERROR_RATE, Verdict.SUCCESS, id="two-failed"),
        pytest.param(copies(40, failed=12), MetricName.ERROR_RATE, Verdict.FAIL, id="many-failed"),
        pytest.param(copies(0), MetricName.LATENCY, Verdict.NOT_MEASURED, id="nothing-timed"),
        pytest.param(copies(49), MetricName.LATENCY, Verdict.INCONCLUSIVE, id="too-few-timed"),
        pytest.param(copies(100), MetricName.LATENCY, Verdict.SUCCESS, id="as-fast"),
        pytest.param(copies(100, other_ms=40), MetricName.LATENCY, Verdict.FAIL, id="slower"),
    ],
)
def test_shadow_stage_is_judged_by_copies_alone(found: Tally, metric: MetricName, verdict: Verdict) -> None:
    """The challenger answers nobody; whatever requests say of it is of another time."""
    evidence = Evidence(
        champion=stats(1000, ms=1), challenger=stats(100, faults=90), pairs=found, is_shadow=True
    )
    assert measurement(evidence, metric).verdict is verdict


@pytest.mark.parametrize(
    ("champion_ms", "challenger_ms", "verdict"),
    [
        pytest.param(4.0, 4.0, Verdict.SUCCESS, id="equal"),
        pytest.param(4.0, 8.8, Verdict.SUCCESS, id="twice-but-under-5-ms"),
        pytest.param(4.0, 9.5, Verdict.FAIL, id="beyond-both"),
        pytest.param(100.0, 120.0, Verdict.SUCCESS, id="20-ms-but-under-a-quarter"),
        pytest.param(100.0, 130.0, Verdict.FAIL, id="beyond-a-quarter"),
        pytest.param(40.0, 4.0, Verdict.SUCCESS, id="faster"),
    ],
)
def test_latency_fails_only_beyond_ratio_and_difference(
    champion_ms: float, challenger_ms: float, verdict: Verdict
) -> None:
    """Sketches meet a quantile to 1 %."""
    evidence = Evidence(champion=stats(500, ms=champion_ms), challenger=stats(500, ms=challenger_ms))
    assert measurement(evidence, MetricName.LATENCY).verdict is verdict


@pytest.mark.parametrize(
    ("slow", "verdict"),
    [
        pytest.param(4, Verdict.SUCCESS, id="below-the-quantile"),
        pytest.param(6, Verdict.INCONCLUSIVE, id="beyond-by-chance"),
        pytest.param(30, Verdict.FAIL, id="proved"),
    ],
)
def test_latency_is_inconclusive_when_few_slow_answers_prove_nothing(slow: int, verdict: Verdict) -> None:
    """Of a hundred answers, six slow ones move p95 and may be chance."""
    challenger = stats(100 - slow, ms=4).plus(stats(slow, ms=40))
    evidence = Evidence(champion=stats(1000), challenger=challenger)
    assert measurement(evidence, MetricName.LATENCY).verdict is verdict


def test_latency_at_100_percent_is_judged_by_the_champions_copies() -> None:
    """Its earlier stages were another load; without enough copies they are what there is."""
    control = Tally()
    for _ in range(60):
        control.add({}, champion_seconds=0.03, other_seconds=0.03)
    late = stats(500, ms=30)
    final = Evidence(champion=stats(500, ms=4), challenger=late, control=control, is_final=True)
    assert measurement(final, MetricName.LATENCY).verdict is Verdict.SUCCESS
    assert measurement(replace(final, control=Tally()), MetricName.LATENCY).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        pytest.param(Tally(), Verdict.NOT_MEASURED, id="none"),
        pytest.param(numbers(29, 1.0, 1.0), Verdict.INCONCLUSIVE, id="one-too-few"),
        pytest.param(numbers(30, 0.0, 0.0), Verdict.SUCCESS, id="constant-output"),
        pytest.param(numbers(30, 10.0, 14.0), Verdict.SUCCESS, id="within-half"),
        pytest.param(numbers(30, 10.0, 16.0), Verdict.FAIL, id="beyond-half"),
        pytest.param(numbers(30, 0.0, 1.0), Verdict.FAIL, id="off-a-constant-zero"),
    ],
)
@pytest.mark.parametrize("kind", [None, Kind.PREDICTOR])
def test_numbers_are_judged_by_their_median(found: Tally, verdict: Verdict, kind: Kind | None) -> None:
    """Without a type, one column is a number."""
    assert measurement(Evidence(pairs=found), MetricName.PREDICTIONS, kind).verdict is verdict


@pytest.mark.parametrize(
    ("differing_ratio", "verdict"),
    [
        pytest.param(0.0, Verdict.SUCCESS, id="equal"),
        pytest.param(0.25, Verdict.SUCCESS, id="at-the-limit"),
        pytest.param(0.3, Verdict.INCONCLUSIVE, id="beyond-by-chance"),
        pytest.param(0.6, Verdict.FAIL, id="proved"),
    ],
)
@pytest.mark.parametrize("kind", [None, Kind.CLASSIFIER])
def test_labels_are_judged_by_the_share_that_differs(
    differing_ratio: float, verdict: Verdict, kind: Kind | None
) -> None:
    """Without a type, several columns have a largest one."""
    found = pairs(40, differing_ratio=differing_ratio)
    measured = measurement(Evidence(pairs=found), MetricName.PREDICTIONS, kind)
    assert (measured.verdict, measured.evidence["differing_ratio"]) == (verdict, differing_ratio)


@pytest.mark.parametrize(
    ("found", "kind", "verdict"),
    [
        pytest.param(mixed(40, "price", number=14), None, Verdict.SUCCESS, id="number-first-within"),
        pytest.param(mixed(40, "price", number=16), None, Verdict.FAIL, id="number-first-beyond"),
        pytest.param(mixed(40, "price", differing_ratio=0.3), None, Verdict.SUCCESS, id="number-first-bands"),
        pytest.param(mixed(40, "bands", differing_ratio=0.3), None, Verdict.INCONCLUSIVE, id="bands-first"),
        pytest.param(mixed(40, "bands", differing_ratio=0.6), None, Verdict.FAIL, id="bands-first-beyond"),
        pytest.param(mixed(40, "bands", number=14), None, Verdict.SUCCESS, id="number-second-within"),
        pytest.param(mixed(40, "bands", number=16), None, Verdict.FAIL, id="number-second-beyond"),
        pytest.param(
            mixed(40, "bands", differing_ratio=0.3), Kind.PREDICTOR, Verdict.SUCCESS, id="predictor-by-tag"
        ),
        pytest.param(
            mixed(40, "price", differing_ratio=0.3), Kind.CLASSIFIER, Verdict.INCONCLUSIVE, id="by-tag"
        ),
    ],
)
def test_first_output_says_what_an_untyped_model_is(
    found: Tally, kind: Kind | None, verdict: Verdict
) -> None:
    """Of a predictor the bands are numbers too, of which few far ones move no median; a tag outranks it."""
    assert measurement(Evidence(pairs=found), MetricName.PREDICTIONS, kind).verdict is verdict


def scored(right: int, labels: int = 400) -> Scored:
    return Scored(classified=labels, right=right)


@pytest.mark.parametrize(
    ("champion", "challenger", "verdict"),
    [
        pytest.param(scored(0, 0), scored(0, 0), Verdict.NOT_MEASURED, id="none"),
        pytest.param(scored(29, 29), scored(400), Verdict.NOT_MEASURED, id="one-too-few"),
        pytest.param(scored(380), scored(376), Verdict.SUCCESS, id="a-little-worse"),
        pytest.param(scored(380), scored(300), Verdict.FAIL, id="much-worse"),
        pytest.param(scored(300), scored(380), Verdict.SUCCESS, id="better"),
        pytest.param(
            Scored(measured=100, absolute=100.0, squared=120.0),
            Scored(measured=100, absolute=120.0, squared=150.0),
            Verdict.SUCCESS,
            id="errors-within",
        ),
        pytest.param(
            Scored(measured=100, absolute=100.0, squared=120.0),
            Scored(measured=100, absolute=300.0, squared=950.0),
            Verdict.FAIL,
            id="errors-beyond",
        ),
    ],
)
def test_feedback_is_judged_when_it_came(champion: Scored, challenger: Scored, verdict: Verdict) -> None:
    evidence = Evidence(champion_labels=champion, challenger_labels=challenger)
    assert measurement(evidence, MetricName.LABELS).verdict is verdict


@pytest.mark.parametrize(
    ("evidence", "verdict"),
    [
        pytest.param(equal(100), Verdict.SUCCESS, id="all-well"),
        pytest.param(Evidence(), Verdict.INCONCLUSIVE, id="nothing-came"),
        pytest.param(replace(equal(100), pairs=Tally()), Verdict.INCONCLUSIVE, id="a-required-one-missing"),
        pytest.param(
            replace(equal(100), challenger=stats(100, faults=40), pairs=Tally()),
            Verdict.FAIL,
            id="worst-wins",
        ),
    ],
)
def test_worst_measurement_wins(evidence: Evidence, verdict: Verdict) -> None:
    """Missing evidence never outweighs a failure and is never a success."""
    assert judge(evidence, POLICY, None).verdict is verdict


def test_metric_that_is_not_required_may_be_missing() -> None:
    policy = with_policy(required=["error_rate"])
    evidence = Evidence(champion=stats(100), challenger=stats(100))
    assert judge(evidence, policy, None).verdict is Verdict.SUCCESS
    nothing = judge(Evidence(), with_policy(required=[]), None)
    assert nothing.verdict is Verdict.NOT_MEASURED


@pytest.mark.parametrize(
    ("evidence", "shifts"),
    [
        pytest.param(equal(200), (), id="none"),
        pytest.param(
            replace(
                equal(200),
                champion=stats(200, faults=80),
                challenger=stats(200, faults=80),
                baseline=stats(1000),
            ),
            (Shift.ERRORS,),
            id="errors",
        ),
        pytest.param(
            replace(
                equal(200), champion=stats(200, ms=40), challenger=stats(200, ms=40), baseline=stats(1000)
            ),
            (Shift.LATENCY,),
            id="latency",
        ),
        pytest.param(
            replace(equal(200), champion=stats(200, ms=40), baseline=stats(1000)), (), id="champion-only"
        ),
        pytest.param(
            replace(
                equal(200),
                champion=stats(200, faults=80),
                challenger=stats(200, faults=80),
                baseline=stats(40),
            ),
            (),
            id="too-little-past",
        ),
        pytest.param(
            replace(
                equal(200),
                past_labels=scored(380),
                champion_labels=scored(300),
                challenger_labels=scored(300),
            ),
            (Shift.LABELS,),
            id="labels",
        ),
        pytest.param(
            replace(
                equal(200),
                past_labels=scored(29, 29),
                champion_labels=scored(300),
                challenger_labels=scored(300),
            ),
            (),
            id="too-few-labels-of-the-past",
        ),
        pytest.param(
            replace(
                equal(200),
                past_labels=scored(380),
                champion_labels=scored(300),
                challenger_labels=scored(380),
            ),
            (),
            id="labels-of-one-only",
        ),
    ],
)
def test_shift_of_both_versions_is_told_from_a_fault_of_one(
    evidence: Evidence, shifts: tuple[Shift, ...]
) -> None:
    assert judge(evidence, POLICY, None).shifts == shifts
