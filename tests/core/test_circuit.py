"""The circuit around a version that stopped answering, tabulated."""

import pytest

from serving.core.circuit import (
    CLOSED,
    FIRST_PAUSE_SECONDS,
    MAX_PAUSE_SECONDS,
    Admission,
    Circuit,
    Phase,
    ask,
    returned,
    stuck,
)

OPEN = Circuit(Phase.OPEN, retry_at=105.0, pause_seconds=5.0)
TRYING = Circuit(Phase.TRYING, retry_at=105.0, pause_seconds=5.0)


@pytest.mark.parametrize(
    ("circuit", "now", "phase", "admission"),
    [
        pytest.param(CLOSED, 0.0, Phase.CLOSED, Admission.PASS, id="closed"),
        pytest.param(OPEN, 104.9, Phase.OPEN, Admission.REFUSE, id="in-the-pause"),
        pytest.param(OPEN, 105.0, Phase.TRYING, Admission.TRIAL, id="pause-over"),
        pytest.param(TRYING, 105.0, Phase.TRYING, Admission.REFUSE, id="second-trial"),
        pytest.param(TRYING, 500.0, Phase.TRYING, Admission.REFUSE, id="long-trial"),
    ],
)
def test_request_is_admitted_by_phase_and_time(
    circuit: Circuit, now: float, phase: Phase, admission: Admission
) -> None:
    """One trial at a time, and none before the pause is over."""
    admitted = ask(circuit, now)
    assert (admitted.circuit.phase, admitted.admission) == (phase, admission)


@pytest.mark.parametrize(
    ("circuit", "expected"),
    [
        pytest.param(CLOSED, Circuit(Phase.OPEN, 100 + FIRST_PAUSE_SECONDS), id="closed"),
        pytest.param(OPEN, OPEN, id="open-already"),
        pytest.param(TRYING, Circuit(Phase.OPEN, 110.0, 10.0), id="trial-in-vain"),
        pytest.param(
            Circuit(Phase.TRYING, 0.0, 31.0),
            Circuit(Phase.OPEN, 100 + MAX_PAUSE_SECONDS, MAX_PAUSE_SECONDS),
            id="longest-pause",
        ),
    ],
)
def test_circuit_opens_when_every_thread_is_stuck(circuit: Circuit, expected: Circuit) -> None:
    """The pause doubles with each trial in vain, up to a minute."""
    assert stuck(circuit, 100.0) == expected


@pytest.mark.parametrize("circuit", [CLOSED, OPEN, TRYING])
def test_circuit_closes_when_anything_returned(circuit: Circuit) -> None:
    """And the next pause is the first one again."""
    assert returned(circuit) == CLOSED
