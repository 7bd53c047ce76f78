"""Labels, tabulated: paired where both versions answered, and the worst slice that was declared."""

from collections.abc import Mapping

import pytest

from flows.rollout.evidence import Evidence
from flows.rollout.labelled import measure
from flows.rollout.measurement import Measurement, Verdict
from flows.rollout.paired import Agreement, Errors, Labelled, paired, total
from flows.rollout.policy import JudgePolicy, read_policy
from flows.rollout.slices import Slices
from serving.core.labels import LabelValue
from serving.core.scored import NOT_SCORED, Scored
from serving.store.labels import Twice

POLICY = read_policy(None)
REQUIRED = JudgePolicy.model_validate(POLICY.model_dump() | {"required": ["labels"]})
RARE: Slices = {"rare": ("7", "9"), "common": ("0",)}


def measured(found: Labelled, policy: JudgePolicy = POLICY, slices: Slices | None = None) -> Measurement:
    return measure(Evidence(labelled=found), policy, slices or {})


def classes(by_class: Mapping[str, Agreement]) -> Labelled:
    return Labelled(total(by_class.values()), by_class=by_class)


def rows(both: int, lost: int = 0, won: int = 0) -> Agreement:
    return Agreement(both, lost, won, 0)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        pytest.param(rows(29), Verdict.NOT_MEASURED, id="one-too-few"),
        pytest.param(rows(30), Verdict.SUCCESS, id="enough"),
        pytest.param(rows(960, lost=20, won=20), Verdict.SUCCESS, id="lost-as-won"),
        pytest.param(rows(960, won=40), Verdict.SUCCESS, id="better"),
        pytest.param(rows(981, lost=19), Verdict.SUCCESS, id="sure-and-within-2-percent"),
        pytest.param(rows(979, lost=21), Verdict.FAIL, id="sure-and-beyond-2-percent"),
        pytest.param(rows(25, lost=6), Verdict.SUCCESS, id="six-lost-may-be-chance"),
        pytest.param(rows(24, lost=7), Verdict.FAIL, id="seven-lost-are-none"),
        pytest.param(rows(60, lost=24, won=16), Verdict.SUCCESS, id="large-and-maybe-chance"),
    ],
)
def test_rows_that_both_answered_are_judged(found: Agreement, verdict: Verdict) -> None:
    """FAIL beyond the limit, and only where chance does not explain it; fewer labels say nothing."""
    assert measured(classes({"1": found})).verdict is verdict


def test_paired_rows_tell_before_each_versions_own_labels_do() -> None:
    """Ten of forty rows lost are certain; 60 wrong of 400 beside 40 of 400 would not be."""
    own = Evidence(
        champion_labels=Scored(classified=400, right=360),
        challenger_labels=Scored(classified=400, right=340),
    )
    assert measure(own, POLICY, {}).verdict is Verdict.SUCCESS
    both = Evidence(
        champion_labels=own.champion_labels,
        challenger_labels=own.challenger_labels,
        labelled=classes({"1": rows(30, lost=10)}),
    )
    assert measure(both, POLICY, {}).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("found", "policy", "verdict"),
    [
        pytest.param({"7": rows(15), "9": rows(15), "0": rows(200)}, POLICY, Verdict.SUCCESS, id="all-well"),
        pytest.param({"7": rows(29), "0": rows(200)}, POLICY, Verdict.SUCCESS, id="rare-is-unknown"),
        pytest.param({"7": rows(29), "0": rows(200)}, REQUIRED, Verdict.INCONCLUSIVE, id="rare-is-wanted"),
        pytest.param({"7": rows(30), "0": rows(200)}, REQUIRED, Verdict.SUCCESS, id="rare-is-known"),
        pytest.param({"7": rows(30, lost=12), "0": rows(2000)}, POLICY, Verdict.FAIL, id="rare-is-lost"),
        pytest.param({"4": rows(30, lost=12), "0": rows(2000)}, POLICY, Verdict.SUCCESS, id="not-declared"),
        pytest.param({"7": rows(189, lost=9), "0": rows(2000)}, POLICY, Verdict.SUCCESS, id="below-limit"),
        pytest.param({"7": rows(30, lost=7), "0": rows(2000)}, POLICY, Verdict.SUCCESS, id="at-half-level"),
        pytest.param({"7": rows(30, lost=8), "0": rows(2000)}, POLICY, Verdict.FAIL, id="beyond-it"),
    ],
)
def test_worst_declared_slice_is_judged(
    found: Mapping[str, Agreement], policy: JudgePolicy, verdict: Verdict
) -> None:
    """Of two slices each is held to half the level: seven lost are certain of one, eight of two."""
    judged = measured(classes(found), policy, RARE)
    assert judged.verdict is verdict, judged
    if verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        assert judged.reason.startswith("slice 'rare'")
        assert judged.evidence["slice"] == "rare"


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [pytest.param(POLICY, Verdict.NOT_MEASURED, id="optional"), pytest.param(REQUIRED, None, id="required")],
)
@pytest.mark.parametrize("labels", [0, 29])
def test_few_labels_are_waited_for_only_where_they_are_required(
    policy: JudgePolicy, verdict: Verdict | None, labels: int
) -> None:
    """None at all is a source that gave nothing, which no required metric may be."""
    side = Scored(classified=labels, right=labels)
    found = measure(Evidence(champion_labels=side, challenger_labels=side), policy, {})
    assert found.verdict is (verdict or (Verdict.INCONCLUSIVE if labels else Verdict.NOT_MEASURED))


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        pytest.param(Errors(29, 29.0, 90.0, 200.0), Verdict.NOT_MEASURED, id="one-too-few"),
        pytest.param(Errors(100, 100.0, 124.0, 10.0), Verdict.SUCCESS, id="within-a-quarter"),
        pytest.param(Errors(100, 100.0, 130.0, 10.0), Verdict.FAIL, id="beyond-a-quarter"),
        pytest.param(Errors(100, 100.0, 130.0, 900.0), Verdict.SUCCESS, id="beyond-by-chance"),
    ],
)
def test_errors_of_numbers_are_judged_by_row(found: Errors, verdict: Verdict) -> None:
    assert measured(Labelled(errors=found)).verdict is verdict


def told(label: LabelValue, champion: bool, other: bool) -> Twice:
    return Twice(label, Scored(classified=1, right=int(champion)), Scored(classified=1, right=int(other)))


def test_rows_are_added_up_by_true_class() -> None:
    """The same class for 7, 7.0 and "7"; a label that says nothing of one answer counts nowhere."""
    found = paired(
        [
            told(7, True, True),
            told(7.0, True, False),
            told("7", False, True),
            told("cat", False, False),
            Twice("7", Scored(classified=1, right=1), NOT_SCORED),
        ]
    )
    assert found.by_class == {"7": Agreement(1, 1, 1, 0), "cat": Agreement(0, 0, 0, 1)}
    assert (found.classes, found.classes.rows) == (Agreement(1, 1, 1, 1), 4)
    assert found.classes.accuracies == (0.5, 0.5)


def test_errors_are_added_up_by_row() -> None:
    """The growth of each row, whose spread is smaller than either version's."""
    pairs = [(1.0, 1.5), (5.0, 5.5), (9.0, 9.5)]
    found = paired(
        Twice(0.0, Scored(measured=1, absolute=one), Scored(measured=1, absolute=two)) for one, two in pairs
    )
    assert found.errors.means == (5.0, 5.5)
    assert found.errors.standard_error == pytest.approx(0.0)
    assert Errors(1, 1.0, 2.0, 1.0).standard_error == 0.0
