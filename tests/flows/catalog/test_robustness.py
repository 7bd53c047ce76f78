"""Odd inputs, siblings and the replay: each judgement on both sides of its border, from facts alone."""

from dataclasses import replace

import pytest

from flows.catalog.facts import Answer, Facts, Kinship, Loaded, Replay, Side, Source, Stage, Step, Trial
from flows.catalog.policy import ValidationPolicy
from flows.catalog.robustness import odd_inputs, parity, replay
from flows.catalog.verdict import Verdict

PASSED, WARNING, FAILED, NOT_MEASURED = Verdict.PASSED, Verdict.WARNING, Verdict.FAILED, Verdict.NOT_MEASURED
DEFAULT = ValidationPolicy()
GOOD, RAISED = Answer(), Answer(error="raised RuntimeError: no")
NAN, BROKEN = Answer(non_finite=("y",)), Answer(out_of_spec="output 'y' has shape [1, 9]")


@pytest.mark.parametrize(
    ("candidate", "champion", "expected", "said"),
    [
        pytest.param(GOOD, GOOD, PASSED, "answered: highest values", id="both answer"),
        pytest.param(GOOD, None, PASSED, "answered: highest values", id="answers alone"),
        pytest.param(RAISED, GOOD, FAILED, "which the champion answers", id="raises alone"),
        pytest.param(RAISED, RAISED, PASSED, "no worse than the champion", id="both raise"),
        pytest.param(RAISED, None, WARNING, "does not count", id="raises without a champion"),
        pytest.param(NAN, GOOD, WARNING, "is not finite", id="NaN where the champion is finite"),
        pytest.param(NAN, None, WARNING, "is not finite", id="NaN without a champion"),
        pytest.param(NAN, NAN, PASSED, "no worse than the champion", id="both NaN"),
        pytest.param(BROKEN, GOOD, FAILED, "has shape [1, 9]", id="breaks its spec"),
        pytest.param(BROKEN, None, FAILED, "has shape [1, 9]", id="breaks its spec alone"),
        pytest.param(BROKEN, BROKEN, PASSED, "no worse than the champion", id="both break it"),
    ],
)
def test_odd_input_counts_when_the_champion_does_better(
    candidate: Answer, champion: Answer | None, expected: Verdict, said: str
) -> None:
    """Nobody recorded these inputs: what the champion does as well is only told."""
    found = odd_inputs(Facts(odd=(Trial(Source.HIGHEST, 1, candidate, champion),)), DEFAULT)
    assert found.verdict is expected
    assert said in found.message


def test_overflow_is_excused_when_the_champion_overflows_at_the_other_edge() -> None:
    """On which side of the number range a sum overflows tells nothing; elsewhere NaN is a warning."""
    trials = (Trial(Source.HIGHEST, 1, GOOD, NAN), Trial(Source.LOWEST, 1, NAN, GOOD))
    assert odd_inputs(Facts(odd=trials), DEFAULT).verdict is PASSED
    found = odd_inputs(Facts(odd=(*trials, Trial(Source.LARGE, 1, NAN, GOOD))), DEFAULT)
    assert found.verdict is WARNING
    assert "large values" in found.message


def test_worst_odd_input_is_told_in_full_when_several_are_bad() -> None:
    """The others by name."""
    trials = (Trial(Source.LARGE, 1, RAISED, GOOD), Trial(Source.MAXIMUM, 64, RAISED, GOOD))
    told = odd_inputs(Facts(odd=trials), DEFAULT).message
    assert told.endswith("which the champion answers; likewise on: largest batch (64 rows)")


@pytest.mark.parametrize(("side", "expected"), [(Side.CANDIDATE, FAILED), (Side.CHAMPION, NOT_MEASURED)])
def test_odd_input_counts_when_the_process_died_of_it(side: Side, expected: Verdict) -> None:
    """The champion is asked first: what it dies of says nothing against the candidate."""
    step = Step(side, "answering the empty batch", Stage.ODD)
    found = odd_inputs(Facts(step=step, odd_interrupted="crashed: the process died of SIGSEGV"), DEFAULT)
    assert found.verdict is expected
    assert "SIGSEGV while" in found.message
    assert "empty batch" in found.message


def test_odd_inputs_are_not_measured_when_there_were_none() -> None:
    """Nothing was answered that could be varied, or an earlier end came first."""
    assert odd_inputs(Facts(), DEFAULT).verdict is NOT_MEASURED
    assert "not reached" in odd_inputs(Facts(interrupted="hanging"), DEFAULT).message


ALIKE = Kinship("digits/3", format="onnx", largest=1e-6, tolerance=1e-3, rows=8)
LOST = Kinship("digits/4", problem="it is gone")
OTHER = Kinship("digits/5", format="torchscript", differs="output 'y' differs by up to 0.5", largest=0.5)


@pytest.mark.parametrize(
    ("kin", "expected", "said"),
    [
        pytest.param((), NOT_MEASURED, "tag signalbox.sibling", id="none"),
        pytest.param((ALIKE,), PASSED, "answers as digits/3 (onnx) does on 8 rows", id="alike"),
        pytest.param((ALIKE, OTHER), FAILED, "differs by up to 0.5, beside digits/5", id="one differs"),
        pytest.param((LOST,), NOT_MEASURED, "not compared with digits/4: it is gone", id="lost"),
        pytest.param((ALIKE, LOST), PASSED, "it is gone", id="one lost"),
    ],
)
def test_parity_fails_when_a_sibling_answers_differently(
    kin: tuple[Kinship, ...], expected: Verdict, said: str
) -> None:
    """One difference refutes the claim; a sibling that cannot be asked proves nothing."""
    found = parity(Facts(kin=kin), DEFAULT)
    assert found.verdict is expected
    assert said in found.message


ASKED = Replay(rows=50, trial=Trial(Source.LOGGED, 50, GOOD, GOOD), agreement=0.9, compared=50)


def answered(answer: Answer, champion: Answer | None = GOOD) -> Trial:
    return Trial(Source.LOGGED, 50, answer, champion)


@pytest.mark.parametrize(
    ("found", "expected", "said"),
    [
        pytest.param(None, NOT_MEASURED, "no replay of recent inputs was asked for", id="not asked"),
        pytest.param(Replay(problem="the log holds no rows"), NOT_MEASURED, "no rows", id="no log"),
        pytest.param(ASKED, PASSED, "50 recent rows asked again, 90.0% classified", id="alike"),
        pytest.param(replace(ASKED, trial=answered(RAISED), raised=2), FAILED, "on 2 rows", id="raises"),
        pytest.param(
            replace(ASKED, trial=answered(RAISED, RAISED), champion_raised=2),
            WARNING,
            "both",
            id="both raise",
        ),
        pytest.param(replace(ASKED, trial=answered(NAN), non_finite=3), FAILED, "on 3 rows", id="NaN"),
        pytest.param(replace(ASKED, trial=answered(BROKEN)), FAILED, "shape [1, 9]", id="off its spec"),
        pytest.param(replace(ASKED, agreement=0.5), PASSED, "50.0%", id="agreement at the limit"),
        pytest.param(replace(ASKED, agreement=0.49), WARNING, "less than 0.5", id="agreement below"),
        pytest.param(replace(ASKED, agreement=0.0, compared=29), PASSED, "0.0%", id="too few to say"),
        pytest.param(replace(ASKED, agreement=None, shift=0.5), PASSED, "shifted", id="shift at the limit"),
        pytest.param(replace(ASKED, agreement=None, shift=0.51), FAILED, "at most 0.5", id="shift beyond"),
    ],
)
def test_replay_is_judged_when_recent_inputs_were_asked(
    found: Replay | None, expected: Verdict, said: str
) -> None:
    """Recorded inputs must be answered, finitely; without labels a difference alone refuses little."""
    check = replay(Facts(champion=Loaded("1"), replay=found), DEFAULT)
    assert check.verdict is expected
    assert said in check.message
