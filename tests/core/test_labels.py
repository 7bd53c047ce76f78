"""What a label says of an answer: right, wrong, how far off, or nothing, and then why."""

import math

import pytest

from serving.core.labels import Elements, LabelValue, Unscorable, Verdict, class_name, judge

SCORES: dict[str, Elements] = {"y": [0.1, 0.7, 0.2]}
CLASS: dict[str, Elements] = {"probabilities": [0.9, 0.1], "label": [1]}
TEXT: dict[str, Elements] = {"label": ["cat"]}
ONE: dict[str, Elements] = {"y": [2.5]}


def judged(
    label: LabelValue, outputs: dict[str, Elements], task: str | None = None, classes: tuple[str, ...] = ()
) -> Verdict:
    found = judge(label, outputs, task=task, classes=classes, delay_seconds=3.0)
    assert isinstance(found, Verdict), found
    return found


@pytest.mark.parametrize(
    ("label", "outputs", "task", "said", "is_right"),
    [
        pytest.param(1, SCORES, None, "1", True, id="best score"),
        pytest.param(2, SCORES, None, "1", False, id="another class"),
        pytest.param("1", SCORES, None, "1", True, id="class number as text"),
        pytest.param(1.0, SCORES, None, "1", True, id="class number as float"),
        pytest.param(1, CLASS, None, "1", True, id="class said wins over scores"),
        pytest.param(0, CLASS, "classifier", "1", False, id="class said, wrong"),
        pytest.param(True, CLASS, None, "1", True, id="true is class 1"),
        pytest.param("cat", TEXT, None, "cat", True, id="text"),
        pytest.param("dog", TEXT, None, "cat", False, id="other text"),
        pytest.param(1, ONE, "classifier", "1", True, id="one score beyond one half"),
        pytest.param(0, {"y": [0.49]}, "classifier", "0", True, id="one score below one half"),
        pytest.param(1, {"y": [0.5]}, "classifier", "1", True, id="one score of one half"),
        pytest.param(1, SCORES, "router", "1", True, id="route"),
    ],
)
def test_class_is_right_or_wrong(
    label: LabelValue, outputs: dict[str, Elements], task: str | None, said: str, is_right: bool
) -> None:
    """Whatever form label and answer name it in."""
    verdict = judged(label, outputs, task)
    assert (verdict.said, verdict.scored.classified, verdict.scored.right) == (said, 1, int(is_right))
    assert verdict.scored.pairs == {(class_name(label), said): 1}
    assert verdict.scored.delays.count == 1


@pytest.mark.parametrize(
    ("label", "said", "is_right"),
    [
        pytest.param("dog", "dog", True, id="name of the best"),
        pytest.param("cat", "dog", False, id="name of another"),
        pytest.param("1", "1", True, id="number, which is no name"),
    ],
)
def test_scores_are_named_when_their_classes_are_known(label: str, said: str, is_right: bool) -> None:
    """Labels as text need the names that the version was registered with."""
    verdict = judged(label, SCORES, classes=("cat", "dog", "fox"))
    assert (verdict.said, bool(verdict.scored.right)) == (said, is_right)


@pytest.mark.parametrize(
    ("label", "outputs", "task", "absolute", "squared"),
    [
        pytest.param(2.0, ONE, None, 0.5, 0.25, id="one float"),
        pytest.param(4, ONE, None, 1.5, 2.25, id="whole number"),
        pytest.param([1.0, 3.0], {"y": [2.0, 5.0]}, "predictor", 1.5, 2.5, id="several"),
        pytest.param(3, {"y": [1]}, "predictor", 2.0, 4.0, id="declared"),
    ],
)
def test_number_is_off_by_so_much(
    label: LabelValue, outputs: dict[str, Elements], task: str | None, absolute: float, squared: float
) -> None:
    """The mean over the elements of a row."""
    scored = judged(label, outputs, task).scored
    assert (scored.measured, scored.absolute, scored.squared) == (1, absolute, squared)


@pytest.mark.parametrize(
    ("label", "outputs", "task", "reason"),
    [
        pytest.param(1, {}, None, "no output", id="not logged"),
        pytest.param(1, SCORES, "extractor", "embedding", id="embedding"),
        pytest.param("warm", ONE, None, "finite number", id="text for a number"),
        pytest.param(math.nan, ONE, None, "finite number", id="nan for a number"),
        pytest.param(1.0, {"y": [math.inf]}, None, "not finite", id="answer not finite"),
        pytest.param([1.0], {"y": [1.0, 2.0]}, "predictor", "2 numbers, the label 1", id="other length"),
        pytest.param(1.5, SCORES, None, "must be a class", id="half a class"),
        pytest.param([1.0], SCORES, None, "must be a class", id="list for a class"),
        pytest.param(1, {"y": [math.nan, 1.0]}, None, "finite score", id="scores not finite"),
        pytest.param("cat", SCORES, None, "nothing names the scores", id="text without names"),
    ],
)
def test_label_says_nothing_and_why(
    label: LabelValue, outputs: dict[str, Elements], task: str | None, reason: str
) -> None:
    """It is kept and counted, and spoils no accuracy."""
    found = judge(label, outputs, task=task, delay_seconds=1.0)
    assert isinstance(found, Unscorable)
    assert reason in found.reason
