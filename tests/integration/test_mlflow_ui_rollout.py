"""Rollouts worked from MLflow's own pages, by a real browser, while callers are asking: an alias set by
clicking, followed to champion; deleted, moved and set by hand in the middle."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from serving.core.model import Alias, Tag
from serving.store import audit, changes, outbox
from serving.store.rollouts import Rollout, State
from tests.integration.conftest import StartServing
from tests.integration.mlflow_person import Person
from tests.integration.promotions import PROMOTE, Promotions, promoting
from tests.mlflow_registry import MlflowRegistry, RegisteredModel
from tests.prefect_server import PrefectServer
from tests.serving_process import ServingProcess
from tests.traffic import Traffic, failed, wrong
from tests.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

RATE = 50
PERCENTS = [25, 50, 100]
PLAN: dict[str, Any] = {"strategy": "staged", "stages": "25,50,100", "stage_seconds": 3.0}


@pytest.fixture(scope="module")
def by_stages(prefect_server: PrefectServer) -> Iterator[PrefectServer]:
    """The session's Prefect, whose flows promote by short stages."""
    with prefect_server.planned(**PLAN):
        yield prefect_server


@pytest.fixture
def promotions(
    registry: MlflowRegistry, by_stages: PrefectServer, start_serving: StartServing
) -> Iterator[Promotions]:
    with promoting(registry, by_stages, start_serving) as promotions:
        yield promotions


def person_at(page: Page, promotions: Promotions, model: RegisteredModel) -> Person:
    prefect_url = promotions.prefect.url.removesuffix("/api")
    return Person(page, promotions.registry.server.url, prefect_url, model.name)


def newest(promotions: Promotions, model: RegisteredModel) -> Rollout | None:
    found = promotions.rollouts(model)
    return found[-1] if found else None


def await_state(promotions: Promotions, model: RegisteredModel, version: str, state: State) -> Rollout:
    """The newest rollout, once it is of that version and in that state."""

    def found() -> Rollout | None:
        rollout = newest(promotions, model)
        return (
            rollout if rollout is not None and (rollout.version, rollout.state) == (version, state) else None
        )

    what = f"the rollout of version {version} is {state}"
    until(found, what, seconds=90.0, context=promotions.prefect.explain)
    rollout = found()
    assert rollout is not None
    return rollout


def await_observed(promotions: Promotions, model: RegisteredModel, version: str) -> Rollout:
    """Once part of the traffic goes to the version and is judged."""

    def observed() -> bool:
        rollout = newest(promotions, model)
        is_of_it = rollout is not None and rollout.version == version and rollout.state is State.OPEN
        return is_of_it and ((rollout.status or {}) if rollout else {}).get("step") == "observe"

    what = f"version {version} is observed"
    until(observed, what, seconds=90.0, context=promotions.prefect.explain)
    rollout = newest(promotions, model)
    assert rollout is not None
    return rollout


def assert_one_id_joins(promotions: Promotions, rollout: Rollout) -> None:
    """Prefect's runs and report, MLflow's version, the audit trail and the notices all name the rollout."""
    entries = [row.entry for row in audit.tail(promotions.engine, 500, rollout.model)]
    steps = [entry.details["step"] for entry in entries if entry.details.get("rollout") == rollout.id]
    assert steps[0] == "requested"
    assert steps[-1] == str(rollout.state)
    moves = [entry for entry in entries if rollout.id in str(entry.details.get("reason", ""))]
    assert {entry.action for entry in moves} >= {"alias", "traffic"}, moves
    runs = promotions.prefect.runs(PROMOTE, model=rollout.model, version=rollout.version)
    assert [run["tags"] for run in runs] == [[f"rollout:{rollout.id}"]]
    reports = promotions.prefect.artifacts(f"promotion-{rollout.model}")
    [report] = [each for each in reports if each["flow_run_id"] == runs[0]["id"]]
    assert f"- rollout: {rollout.id}" in report["data"]
    told = [queued.notice for queued in outbox.recent(promotions.engine, 200)]
    assert [n.kind for n in told if n.facts.get("rollout") == rollout.id] == [str(rollout.state)]


def test_version_becomes_champion_when_challenger_is_clicked(page: Page, promotions: Promotions) -> None:
    """Set by clicking, seen stage by stage on the version's page, to the report beside its run."""
    model, serving = promotions.serve("onnx:1", "onnx:2")
    person = person_at(page, promotions, model)
    with Traffic(serving.url, model.name, rate_per_second=RATE) as traffic:
        person.add_alias("2", "challenger")
        person.sees("2", traffic_percent="25", stage="1 of 3", verdict="open: observe at 25 %")
        person.sees("2", traffic_percent="100", verdict="promoted: in the place of version 1")
        rollout = promotions.assert_promoted(model, "2")
        serving.wait_for(model.name, "2")
    expect(person.alias("champion")).to_be_visible()
    assert rollout.requested_by == "alias challenger"
    assert [stage["percent"] for stage in (rollout.status or {})["passed"]] == PERCENTS
    assert rollout.id in person.tag("rollout")
    assert Tag.TRAFFIC not in model.tags()
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, model.constants) == []
    assert {"champion", "challenger"} <= {sample.variant for sample in traffic.samples}
    promotions.prefect.ended(PROMOTE, model=model.name)
    assert_one_id_joins(promotions, rollout)
    see_reports(person, promotions, rollout)


def see_reports(person: Person, promotions: Promotions, rollout: Rollout) -> None:
    """As MLflow and Prefect show them: a heading, the picture, the evidence."""
    run = promotions.registry.call("GET", f"runs/get?run_id={promotions.registry.logged['onnx:2'].run_id}")
    person.open_run_file(run["run"]["info"]["experiment_id"], run["run"]["info"]["run_id"], rollout.id)
    assert_report_is_shown(person.page, rollout)
    [report] = promotions.prefect.artifacts(f"promotion-{rollout.model}")
    person.open_artifact(report["id"])
    assert_report_is_shown(person.page, rollout)


def assert_report_is_shown(page: Page, rollout: Rollout) -> None:
    expect(page.get_by_role("heading", name=f"{rollout.model}: promoted")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="error rate").first).to_contain_text("success")
    picture = page.get_by_role("img", name="Requests, errors and latency")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 500


def test_rollout_follows_the_hand_when_aliases_are_clicked_in_the_middle(
    page: Page, promotions: Promotions
) -> None:
    """Deleting `challenger` aborts; moving it begins the next; `champion` set by hand stays."""
    model, serving = promotions.serve("onnx:1", "onnx:2", "onnx:3")
    person = person_at(page, promotions, model)
    with Traffic(serving.url, model.name, rate_per_second=RATE) as traffic:
        person.add_alias("2", "challenger")
        await_observed(promotions, model, "2")
        person.remove_alias("2", "challenger")
        aborted = await_state(promotions, model, "2", State.ROLLED_BACK)
        assert aborted.reason == "alias challenger was deleted, which aborts the rollout"
        assert_over(model, serving, "1")

        person.add_alias("2", "challenger")
        await_observed(promotions, model, "2")
        person.add_alias("3", "challenger")
        await_observed(promotions, model, "3")
        superseded = promotions.rollouts(model)[1]
        assert (superseded.version, superseded.state) == ("2", State.SUPERSEDED)
        assert superseded.reason == "alias challenger was moved to 3"

        person.add_alias("3", "champion")
        by_hand = await_state(promotions, model, "3", State.SUPERSEDED)
        assert by_hand.reason == "alias champion was moved to it by hand"
        assert_over(model, serving, "3")
        person.sees("3", traffic_percent="100", verdict="superseded: alias champion was moved to it by hand")
        person.sees("2", traffic_percent="0", verdict="superseded: alias challenger was moved to 3")
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, model.constants) == []
    latest = changes.latest(promotions.engine, model.name, Alias.CHAMPION)
    assert latest is not None
    assert (latest.out_of_band, latest.from_version, latest.to_version) == (True, "1", "3")
    until(lambda: model.aliases().get("previous") == "1", "previous names what the hand left")
    told = [notice.facts for notice in serving.notices("out_of_band", model.name)]
    champions = [(facts["from"], facts["to"]) for facts in told if facts["alias"] == "champion"]
    challengers = [(facts["from"], facts["to"]) for facts in told if facts["alias"] == "challenger"]
    assert champions == [(None, "1"), ("1", "3")]
    assert challengers[:3] == [(None, "2"), ("2", None), (None, "2")]
    assert promotions.champion_moves(model) == []
    promotions.assert_nothing_lost()


def assert_over(model: RegisteredModel, serving: ServingProcess, champion: str) -> None:
    """Every caller gets the champion, and nothing is left of the rollout."""
    serving.wait(lambda: Alias.CHALLENGER not in model.aliases(), "alias challenger is gone", 30.0)
    serving.wait_for(model.name, champion)
    assert model.aliases()[Alias.CHAMPION] == champion
    assert Tag.TRAFFIC not in model.tags()
