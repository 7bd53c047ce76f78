"""A stage before the first percent: the challenger gets copies, answers nobody, and is judged by them."""

from dataclasses import replace

import pytest

from flows.rollout.evidence import Evidence, Span
from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.promotion import record
from serving.core.comparison import Tally
from serving.core.model import Tag
from serving.core.traffic import Split, read_tag
from serving.store.rollouts import Entry
from tests.flows.rollout.line import MODEL, Line
from tests.flows.rollout.registrar import Registrar
from tests.flows.rollout.witness import Witness, equal, pairs, stats

PLAN = {"stages": "shadow,50,100", "stage_seconds": 5.0}


@pytest.fixture
def witness(line: Line) -> Witness:
    line.evidence = witness = Witness(says)
    return witness


def staged(line: Line, **policy: object) -> Outcome:
    asked = replace(line.ask("2"), strategy="staged", policy={**PLAN, **policy})  # type: ignore[dict-item]
    entry = record(line.engine, line.registry, asked, line.clock)
    assert isinstance(entry, Entry), entry
    return line.carry_on(entry.rollout)


def copies(count: int = 60, *, failed: int = 0, ms: float = 4.0, differing_ratio: float = 0.0) -> Tally:
    found = pairs(40, differing_ratio=differing_ratio)
    for _ in range(count):
        found.add({}, champion_seconds=0.004, other_seconds=ms / 1000)
    found.failed = failed
    return found


def says(span: Span, requests: int, found: Tally | None = None) -> Evidence:
    if not span.is_shadow:
        return equal(requests, is_final=span.is_final)
    return Evidence(champion=stats(requests), pairs=copies() if found is None else found, is_shadow=True)


def test_good_version_passes_the_shadow_stage_before_it_answers_anybody(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    """Every answer is copied meanwhile; the first percent comes with the second stage."""
    seen: list[Split] = []

    def look() -> None:
        split = read_tag(registrar.models[MODEL].tags.get(Tag.TRAFFIC))
        assert isinstance(split, Split)
        seen.append(split)

    for step in ("0 % observe", "50 % observe"):
        line.at[step] = look
    outcome = staged(line)
    assert outcome.verdict is Verdict.PROMOTED, outcome
    assert [(split.percent, split.compare_percent) for split in seen] == [(0, 100), (50, 25)]
    status = (outcome.rollout.status if outcome.rollout else None) or {}
    assert [record["percent"] for record in status["passed"]] == [0, 50, 100]
    assert [span.is_shadow for span in witness.spans][:1] == [True]
    assert registrar.models[MODEL].aliases == {"champion": "2"}


@pytest.mark.fault("F13")
@pytest.mark.parametrize(
    ("found", "words"),
    [
        pytest.param(copies(failed=30), "error rate: champion 0 of 130", id="fails"),
        pytest.param(copies(ms=40.0, count=400), "latency: p95", id="slow"),
        pytest.param(copies(0, differing_ratio=0.9), "predictions: 'output' labels", id="other-answers"),
    ],
)
def test_bad_version_is_rolled_back_before_it_answers_anybody(
    line: Line, registrar: Registrar, witness: Witness, found: Tally, words: str
) -> None:
    """No caller ever met it."""
    witness.says = lambda span, requests: says(span, requests, found)
    outcome = staged(line)
    assert outcome.verdict is Verdict.ROLLED_BACK
    assert outcome.reason.startswith(f"at 0 % (copies only): {words}"), outcome.reason
    assert registrar.models[MODEL].aliases == {"champion": "1"}
    assert Tag.TRAFFIC not in registrar.models[MODEL].tags


@pytest.mark.fault("F14")
@pytest.mark.parametrize(("count", "verdict"), [(9, Verdict.HELD), (10, Verdict.PROMOTED)])
def test_shadow_stage_is_held_when_too_few_copies_come(
    line: Line, registrar: Registrar, witness: Witness, count: int, verdict: Verdict
) -> None:
    """Fifty are enough."""
    witness.says = lambda span, requests: says(span, requests, copies(count))
    outcome = staged(line, stage_deadline_seconds=20)
    assert outcome.verdict is verdict, outcome
    if verdict is Verdict.HELD:
        assert "50 copies of each are needed" in outcome.reason
        assert line.notices() == [("rollout_held", "2")]


def test_gate_before_the_first_percent_comes_after_the_shadow_stage(
    line: Line, registrar: Registrar, witness: Witness
) -> None:
    """A person who is asked before callers meet it has the copies' evidence to look at."""
    outcome = staged(line, approve_before=1)
    assert outcome.verdict is Verdict.HELD
    assert outcome.reason.startswith("approval is wanted before 50 %")
    status = (outcome.rollout.status if outcome.rollout else None) or {}
    assert [record["percent"] for record in status["passed"]] == [0]
