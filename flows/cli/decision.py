"""Attach, start or refuse: what `up` does about one part, decided from facts alone."""

from dataclasses import dataclass
from enum import StrEnum

from flows.cli.ports import Owner


class Answer(StrEnum):
    """What was found at a part's URL."""

    NOTHING = "nothing"
    HEALTHY = "healthy"
    UNAUTHORISED = "unauthorised"
    FOREIGN = "foreign"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Probe:
    """The answer, and in `detail` what exactly was seen."""

    answer: Answer
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the decision about one part rests on.

    `title` names the part in sentences, `setting` is the variable that holds its URL, `credentials`
    says which settings would let us in, `obstacle` why a server of ours could not answer at that URL.
    """

    title: str
    url: str
    setting: str
    credentials: str
    loopback: bool
    port: int
    probe: Probe
    owner: Owner | None
    obstacle: str = ""


class Action(StrEnum):
    ATTACH = "attach"
    START = "start"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Decision:
    """`sentence` tells the user; of a refusal, with the next step."""

    action: Action
    sentence: str


def decide(facts: Facts) -> Decision:
    """Attach to what is healthy and lets us in, start what can be started, refuse the rest."""
    match facts.probe.answer:
        case Answer.HEALTHY:
            return Decision(Action.ATTACH, f"attached to {facts.title} at {facts.url}{_held(facts)}")
        case Answer.UNAUTHORISED:
            return _refuse(
                f"{facts.title} at {facts.url} refuses our credentials ({facts.probe.detail})",
                facts.credentials,
            )
        case Answer.FOREIGN:
            return _refuse(
                f"something other than {facts.title} answers at {facts.url}{_held(facts)}: "
                f"{facts.probe.detail}",
                _make_room(facts),
            )
        case Answer.UNHEALTHY:
            return _refuse(
                f"what answers at {facts.url}{_held(facts)} is not well: {facts.probe.detail}",
                f"repair it, {_make_room(facts)}",
            )
        case Answer.NOTHING:
            return _decide_on_silence(facts)


def _decide_on_silence(facts: Facts) -> Decision:
    if not facts.loopback:
        return _refuse(
            f"{facts.title} does not answer at {facts.url}: {facts.probe.detail}",
            f"start it there, or correct {facts.setting}",
        )
    if facts.owner is not None:
        return _refuse(f"port {facts.port} for {facts.title} is held by {facts.owner}", _make_room(facts))
    if facts.obstacle:
        return _refuse(f"{facts.title} cannot be started at {facts.url}", facts.obstacle)
    return Decision(Action.START, f"starting {facts.title} at {facts.url}")


def _refuse(problem: str, next_step: str) -> Decision:
    return Decision(Action.REFUSE, f"{problem}; {next_step}")


def _held(facts: Facts) -> str:
    return f", held by {facts.owner}" if facts.owner is not None else ""


def _make_room(facts: Facts) -> str:
    if not facts.loopback:
        return f"correct {facts.setting}"
    return f"stop that process or set {facts.setting} to a URL with a free port"
