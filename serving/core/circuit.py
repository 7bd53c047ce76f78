"""Whether a version that stopped answering is asked: a state machine without clock or threads.

Closed, everything passes. Once all its threads are stuck it opens, and requests are refused at once
instead of each waiting out its time. After a pause one request may try; the pause doubles while that is
in vain. Whatever returns, be it the trial or one that was given up, closes the circuit.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

FIRST_PAUSE_SECONDS = 5.0
MAX_PAUSE_SECONDS = 60.0


class Phase(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    TRYING = "trying"


class Admission(StrEnum):
    PASS = "pass"
    TRIAL = "trial"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Circuit:
    """`retry_at` is a moment of the monotonic clock, and means something while the circuit is not closed."""

    phase: Phase = Phase.CLOSED
    retry_at: float = 0.0
    pause_seconds: float = FIRST_PAUSE_SECONDS

    @property
    def is_closed(self) -> bool:
        return self.phase is Phase.CLOSED


@dataclass(frozen=True, slots=True)
class Admitted:
    """The circuit after a request asked to pass, and what it was told."""

    circuit: Circuit
    admission: Admission


CLOSED = Circuit()


def ask(circuit: Circuit, now: float) -> Admitted:
    """Whether a request may pass; of many that come when the pause is over, one is the trial."""
    if circuit.is_closed:
        return Admitted(circuit, Admission.PASS)
    if circuit.phase is Phase.OPEN and now >= circuit.retry_at:
        return Admitted(replace(circuit, phase=Phase.TRYING), Admission.TRIAL)
    return Admitted(circuit, Admission.REFUSE)


def stuck(circuit: Circuit, now: float) -> Circuit:
    """The circuit once every thread is stuck, the trial's included where there was one."""
    if circuit.phase is Phase.OPEN:
        return circuit
    pause = FIRST_PAUSE_SECONDS if circuit.is_closed else min(2 * circuit.pause_seconds, MAX_PAUSE_SECONDS)
    return Circuit(Phase.OPEN, now + pause, pause)


def returned(circuit: Circuit) -> Circuit:
    """The circuit once any execution has returned: the version answers again."""
    return circuit if circuit.is_closed else CLOSED
