"""A version that passes its self-test and fails on real input: callers never notice, and it goes."""

from datetime import UTC, datetime
from time import monotonic

import pytest

from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry
from tests.traffic import Traffic, failed, wrong
from tests.waiting import holds, until

pytestmark = [pytest.mark.integration, pytest.mark.fault("F12")]

REAL = -1.0  # on which the failing version raises; zeros pass
LIMIT_SECONDS = 10.0


def test_failing_champion_is_rolled_back_when_traffic_is_slow(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """At 10 requests a second: gone within 10 s, no caller fails, and the alias is put back."""
    model = registry.model("onnx:1", "onnx:2", "raises", prefix="failing")
    model.point("1")
    serving = start_serving(model.name, poll_seconds=1)
    model.point("2")
    serving.wait_for(model.name, "2")
    until(lambda: model.aliases().get("previous") == "1", "previous is written")

    seen: set[str | None] = set()
    with Traffic(serving.url, model.name, rate_per_second=10, x=REAL) as traffic:
        serving.wait(lambda: traffic.answers_of("2") >= 5, "traffic flows")
        began, at = monotonic(), datetime.now(UTC)
        model.point("3")
        serving.wait(lambda: serving.audited("roll_back", model.name), "it is rolled back", 30)
        noticed_seconds = monotonic() - began

        def is_put_back() -> bool:
            aliases = model.aliases()
            seen.add(aliases.get("previous"))
            return aliases["champion"] == "2"

        until(is_put_back, "the alias is put back", seconds=30)
        put_back_seconds = monotonic() - began
        answered = traffic.answers_of("2")
        serving.wait(lambda: traffic.answers_of("2") >= answered + 10, "version 2 answers on")
    print(f"rolled back after {noticed_seconds:.2f} s, alias put back after {put_back_seconds:.2f} s")

    samples = traffic.samples
    assert failed(samples) == []
    assert wrong(samples, model.constants) == []
    assert {sample.version for sample in samples} == {"2"}
    assert any(sample.variant == "fallback" for sample in samples), "version 3 was never asked"
    assert samples[-1].variant == "champion"

    [entry] = serving.audited("roll_back", model.name)
    [laid] = [e for e in serving.audited("override", model.name) if e.details["step"] == "laid"]
    assert (entry.details["from_version"], entry.version, entry.actor) == ("3", "2", "serving:watch")
    assert 0 < (laid.at - at).total_seconds() < LIMIT_SECONDS
    assert len(serving.notices("rolled_back", model.name)) == 1
    holds(lambda: model.aliases() == {"champion": "2", "previous": "1"}, "aliases are settled", seconds=3)
    assert "3" not in seen, "a version that failed must never become previous"
    serving.assert_nothing_lost()


def test_failing_champion_stays_when_there_is_nothing_to_go_back_to(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """With no earlier version its callers get a clear 500, and somebody is told once."""
    model = registry.model("raises", prefix="failing")
    model.point("1")
    serving = start_serving(model.name)
    with Traffic(serving.url, model.name, rate_per_second=20, x=REAL) as traffic:
        serving.wait(lambda: serving.notices("champion_failing", model.name), "an alert is raised")
        asked = len(traffic.samples)
        serving.wait(lambda: len(traffic.samples) > asked + 20, "more requests come")
    assert {sample.status for sample in traffic.samples} == {500}
    assert all(sample.problem and "\n" not in sample.problem for sample in traffic.samples)
    assert len(serving.notices("champion_failing", model.name)) == 1
    assert model.aliases()["champion"] == "1"
    assert serving.infer(model.name).version == "1"
    serving.assert_nothing_lost()


def test_input_counts_against_nobody_when_the_fallback_fails_on_it_too(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """An input that no version can answer rolls nothing back."""
    model = registry.model("raises", "raises", prefix="failing")
    model.point("1")
    serving = start_serving(model.name)
    model.point("2")
    serving.wait_for(model.name, "2")
    with Traffic(serving.url, model.name, rate_per_second=20, x=REAL) as traffic:
        serving.wait(lambda: len(traffic.samples) > 40, "two seconds of poison")
    assert {sample.status for sample in traffic.samples} == {500}
    assert serving.audited("roll_back", model.name) == []
    assert serving.infer(model.name).version == "2"
    serving.assert_nothing_lost()
