"""Attach, start or refuse, tabulated over the facts."""

import pytest

from flows.cli.decision import Action, Answer, Facts, Probe, decide
from flows.cli.ports import Owner


def facts(
    answer: Answer,
    *,
    loopback: bool = True,
    owner: Owner | None = None,
    obstacle: str = "",
    detail: str = "D",
) -> Facts:
    return Facts(
        title="MLflow",
        url="http://127.0.0.1:5000",
        setting="SIGNALBOX_MLFLOW_URL",
        credentials="set SIGNALBOX_MLFLOW_TOKEN",
        loopback=loopback,
        port=5000,
        probe=Probe(answer, detail),
        owner=owner,
        obstacle=obstacle,
    )


NGINX = Owner(42, "nginx")
NAMELESS = Owner(None, "a process of another user")


@pytest.mark.parametrize(
    ("known", "action"),
    [
        pytest.param(facts(Answer.HEALTHY), Action.ATTACH, id="healthy here"),
        pytest.param(facts(Answer.HEALTHY, loopback=False), Action.ATTACH, id="healthy elsewhere"),
        pytest.param(facts(Answer.HEALTHY, owner=NGINX, obstacle="o"), Action.ATTACH, id="healthy, proxied"),
        pytest.param(facts(Answer.UNAUTHORISED, owner=NGINX), Action.REFUSE, id="no entry"),
        pytest.param(facts(Answer.FOREIGN, owner=NGINX), Action.REFUSE, id="stranger"),
        pytest.param(facts(Answer.UNHEALTHY, owner=NGINX), Action.REFUSE, id="unwell"),
        pytest.param(facts(Answer.NOTHING), Action.START, id="silent and free"),
        pytest.param(facts(Answer.NOTHING, owner=NGINX), Action.REFUSE, id="silent but busy"),
        pytest.param(facts(Answer.NOTHING, loopback=False), Action.REFUSE, id="silent elsewhere"),
        pytest.param(facts(Answer.NOTHING, obstacle="o"), Action.REFUSE, id="cannot be started there"),
    ],
)
def test_decision_follows_facts_when_tabulated(known: Facts, action: Action) -> None:
    """Every answer, on this machine and elsewhere, leads to one action and one line."""
    decision = decide(known)
    assert decision.action is action
    assert len(decision.sentence.splitlines()) == 1


@pytest.mark.parametrize(
    ("known", "words"),
    [
        pytest.param(facts(Answer.NOTHING, owner=NGINX), ("port 5000", "nginx (pid 42)"), id="busy"),
        pytest.param(
            facts(Answer.NOTHING, owner=NAMELESS), ("a process of another user",), id="busy, hidden"
        ),
        pytest.param(facts(Answer.UNAUTHORISED), ("credentials", "SIGNALBOX_MLFLOW_TOKEN"), id="no entry"),
        pytest.param(facts(Answer.FOREIGN, owner=NGINX), ("other than MLflow", "nginx", "D"), id="stranger"),
        pytest.param(facts(Answer.NOTHING, loopback=False), ("D", "SIGNALBOX_MLFLOW_URL"), id="elsewhere"),
        pytest.param(facts(Answer.UNHEALTHY, loopback=False), ("not well", "correct"), id="unwell elsewhere"),
    ],
)
def test_refusal_names_culprit_and_step_when_printed(known: Facts, words: tuple[str, ...]) -> None:
    """The sentence says who is in the way, and what to do."""
    assert all(word in decide(known).sentence for word in words)
