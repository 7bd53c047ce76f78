"""Promotions, commands to rollouts, restore points and freezes over the API, with Prefect away."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from serving.core.clock import SystemClock
from serving.store import model_files, policies, rollouts
from serving.store.leases import Lease, Leases
from serving.store.model_files import ModelFile, State
from serving.store.rollouts import Command, Request
from serving.store.text import JsonValue
from tests.mlflow_double import MlflowDouble
from tests.models import onnx_adder
from tests.station import ADMIN, Station, station
from tests.story import story

NEVER = "00000000000000000000000000000000"


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    """Versions 1 to 3 add their number; champion is 1."""
    double.add("m", *[onnx_adder(tmp_path / "registry" / str(n), float(n)) for n in (1, 2, 3)])
    double.point("m", "1")
    return double


async def post(server: Station, path: str, **wish: Any) -> tuple[int, Any]:
    answer = await server.http.post(f"/api/v2/{path}", json=wish, headers=ADMIN)
    return answer.status_code, answer.json()


async def get(server: Station, path: str) -> tuple[int, Any]:
    answer = await server.http.get(f"/api/v2/{path}", headers=ADMIN)
    return answer.status_code, answer.json()


REFUSALS: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({}, 400, 'name either "version" or "model_path"'),
    ({"version": 2, "model_path": "a.onnx"}, 400, 'name either "version" or "model_path"'),
    ({"version": "two"}, 400, "'version' must be a version number, not 'two'"),
    ({"version": 9}, 404, "no version 9 of 'm'"),
    ({"version": 2, "model": 7}, 400, 'must be an object with "model"'),
    ({"version": 2, "speed": 1}, 400, "'speed' is not known here; known are model, model_path"),
    ({"version": 2, "strategy": "hasty"}, 400, "strategy 'hasty' is not one of staged, direct"),
    ({"version": 2, "rollout_stages": [50, 25]}, 400, "whole percents that rise to 100"),
    ({"version": 2, "rollout_stages": [5, 50]}, 400, "whole percents that rise to 100"),
    ({"version": 2, "rollout_stages": [100], "strategy": "direct"}, 400, "has no stages for 'stages'"),
    ({"version": 2, "stage_seconds": -1}, 400, "'stage_seconds' must be a number from 0"),
    ({"version": 2, "stage_seconds": 0}, 400, "'stage_seconds' must be more than 0"),
    ({"version": 2, "stage_deadline_seconds": 0}, 400, "'stage_deadline_seconds' must be more than 0"),
    (
        {"version": 2, "stage_seconds": 9, "stage_deadline_seconds": 8},
        400,
        "'stage_deadline_seconds' 8 is shorter than 'stage_seconds' 9",
    ),
    ({"version": 2, "validation": {"min_accuracy": 5}}, 400, "'validation.min_accuracy' is a share from 0"),
    ({"version": 2, "validation": {"max_accuracy_drop": 1.01}}, 400, "is a share from 0 to 1, not 1.01"),
    ({"version": 2, "validation": [1]}, 400, "'validation' must be an object"),
    ({"version": 2, "validation": {"charm": 1}}, 400, "'validation.charm' is not known here"),
    ({"version": 2, "validation": {"max_p95_ms": "5"}}, 400, "'validation.max_p95_ms' must be a number"),
    ({"model_path": 7}, 400, "'model_path' must be a path"),
    ({"model_path": "/etc/hostname"}, 400, "must lead into a model folder"),
    ({"model_path": "/nowhere/at/all.onnx"}, 404, "there is no model file at /nowhere/at/all.onnx"),
)


@story
async def test_promotion_is_refused_in_one_sentence(home: Path, double: MlflowDouble) -> None:
    """And no rollout is on record."""
    async with station(home, double) as server:
        await server.serves("1")
        for wish, status, problem in REFUSALS:
            found, told = await post(server, "update-models", **{"model": "m", **wish})
            assert found == status, (wish, told)
            assert problem in told["error"], wish
        assert await get(server, "rollouts") == (200, {"rollouts": []})
        assert (await get(server, f"update-models/{NEVER}"))[0] == 404


@story
async def test_promotion_is_on_record_when_prefect_is_away(home: Path, double: MlflowDouble) -> None:
    """503 that says what still works; whoever asks again joins, another version is told who is at it."""
    async with station(home, double) as server:
        await server.serves("1")
        wish = {"model": "m", "version": 2, "stage_seconds": 5, "validation": {"min_accuracy": 0.5}}
        status, told = await post(server, "update-models", **wish)
        assert status == 503
        assert "is recorded and begins when Prefect is back" in told["error"]
        assert (await post(server, "update-models", **wish))[0] == 503
        _, listed = await get(server, "rollouts?model=m")
        [rollout] = listed["rollouts"]
        assert (rollout["new_version"], rollout["strategy"], rollout["success"]) == ("2", "staged", None)
        assert (await get(server, f"update-models/{rollout['swap_id']}"))[1]["state"] == "open"
        busy, other = await post(server, "update-models", model="m", version=3)
        assert (busy, "version 2 of 'm' is being promoted by admin" in other["error"]) == (409, True)
        # Whoever begins it finds the command; what needs a plan is not to be had yet.
        status, told = await post(server, f"rollouts/{rollout['swap_id']}/pause")
        assert (status, "'pause' for rollout" in told["error"]) == (503, True), told
        assert (await post(server, f"rollouts/{rollout['swap_id']}/approve"))[0] == 409
        assert (await post(server, f"rollouts/{rollout['swap_id']}/hurry"))[0] in (400, 422)
        assert (await post(server, f"rollouts/{NEVER}/abort"))[0] == 404


@story
async def test_abort_ends_a_rollout_that_nobody_has_begun(home: Path, double: MlflowDouble) -> None:
    """At once, also with Prefect away: the model is free for another version, and people are told why."""
    async with station(home, double) as server:
        await server.serves("1")
        await post(server, "update-models", model="m", version=2)
        _, listed = await get(server, "rollouts")
        swap_id = listed["rollouts"][0]["swap_id"]
        status, told = await post(server, f"rollouts/{swap_id}/abort")
        assert (status, told["state"], told["success"]) == (202, "rolled_back", False), told
        assert told["errors"] == ["aborted by admin before it began"]
        assert server.notices().count("refused") == 1
        assert (await post(server, f"rollouts/{swap_id}/abort"))[0] == 409
        assert (await post(server, "update-models", model="m", version=3))[0] == 503
        _, listed = await get(server, "rollouts")
        assert [(each["new_version"], each["state"]) for each in listed["rollouts"]] == [
            ("3", "open"),
            ("2", "rolled_back"),
        ]


@story
async def test_abort_is_refused_of_a_direct_promotion(home: Path, double: MlflowDouble) -> None:
    async with station(home, double) as server:
        await server.serves("1")
        await post(server, "update-models", model="m", version=2, strategy="direct")
        _, listed = await get(server, "rollouts")
        status, told = await post(server, f"rollouts/{listed['rollouts'][0]['swap_id']}/abort")
        assert (status, "is direct: there is nothing to abort" in told["error"]) == (409, True), told


@story
async def test_plan_is_refused_where_the_models_own_policy_makes_it_impossible(
    home: Path, double: MlflowDouble
) -> None:
    """What is kept counts where the request says nothing; a deadline as long as the stage is a plan."""
    async with station(home, double) as server:
        await server.serves("1")
        kept: dict[str, JsonValue] = {"stage_seconds": 30.0}
        policies.put(server.engine, "m", policies.PROMOTION, kept, "anna", datetime.now(UTC))
        wish = {"model": "m", "version": 2, "stage_deadline_seconds": 29}
        status, told = await post(server, "update-models", **wish)
        assert (status, "29 is shorter than 'stage_seconds' 30" in told["error"]) == (400, True), told
        assert (await get(server, "rollouts"))[1] == {"rollouts": []}
        assert (await post(server, "update-models", **{**wish, "stage_deadline_seconds": 30}))[0] == 503


def rests(server: Station, step: str) -> str:
    """The id of a staged rollout that is at this step of its second stage, half an hour before its end."""
    now = datetime.now(UTC)
    asked = Request(
        model="m",
        version="2",
        strategy="staged",
        requested_by="anna",
        spec={"stage_deadline_seconds": 3600.0},
    )
    rollout = rollouts.enter(server.engine, asked, now, now).rollout
    leases = Leases(server.engine, SystemClock())
    lease = leases.acquire("model:m", "promote:1")
    assert isinstance(lease, Lease)
    status: dict[str, JsonValue] = {"step": step, "stage": 1, "looked_at": now.isoformat()}
    rollouts.note(server.engine, rollout, {**status, "rested_seconds": 1800.0}, lease, now)
    leases.release(lease)
    return rollout.id


@story
async def test_approval_is_on_record_for_whoever_carries_the_rollout_on(
    home: Path, double: MlflowDouble
) -> None:
    """With the name of the key's owner and the hour it ends at; Prefect being away delays it."""
    async with station(home, double) as server:
        await server.serves("1")
        rollout = rests(server, "approval")
        status, told = await post(server, f"rollouts/{rollout}/approve")
        assert (status, f"'approve' for rollout {rollout} is recorded" in told["error"]) == (503, True), told
        approval = rollouts.get(server.engine, rollout).asked
        assert approval is not None
        assert (approval.command, approval.by, approval.stage) == (Command.APPROVE, "admin", 1)
        assert approval.until is not None
        assert 1700 < (approval.until - approval.at).total_seconds() <= 1800


@story
async def test_approval_is_refused_while_nothing_waits_for_it(home: Path, double: MlflowDouble) -> None:
    async with station(home, double) as server:
        await server.serves("1")
        rollout = rests(server, "observe")
        status, told = await post(server, f"rollouts/{rollout}/approve")
        assert (status, "waits for no approval: it is at 'observe'" in told["error"]) == (409, True)
        assert rollouts.get(server.engine, rollout).asked is None


@story
async def test_model_file_is_promoted_as_the_version_it_became(
    home: Path, double: MlflowDouble, tmp_path: Path
) -> None:
    """Links followed; one that is not registered, was refused, or is another model's is told so."""
    folder = home / "models"
    folder.mkdir()
    for name in ("good", "new", "bad", "theirs"):
        (folder / f"{name}.onnx").touch()
    (tmp_path / "link.onnx").symlink_to(folder / "good.onnx")
    now = datetime.now(UTC)

    def file(name: str, state: State, model: str = "m", reason: str | None = None) -> ModelFile:
        path = str(folder / f"{name}.onnx")
        version = "2" if state is State.REGISTERED else None
        return ModelFile(
            path=path,
            fingerprint="f",
            since=now,
            state=state,
            model=model,
            version=version,
            reason=reason,
        )

    async with station(home, double) as server:
        await server.serves("1")
        known = (
            file("good", State.REGISTERED),
            file("bad", State.REFUSED, reason="a pickle"),
            file("theirs", State.REGISTERED, model="n"),
        )
        model_files.put_all(server.engine, known, now)
        for name, status, problem in (
            ("new", 409, "new.onnx is not registered yet"),
            ("bad", 422, "bad.onnx was refused at registration: a pickle"),
            ("theirs", 409, "theirs.onnx is version 2 of 'n', not of 'm'"),
        ):
            found, told = await post(server, "update-models", model="m", model_path=f"{folder}/{name}.onnx")
            assert (found, problem in told["error"]) == (status, True), told
        link = str(tmp_path / "link.onnx")
        assert (await post(server, "update-models", model="m", model_path=link))[0] == 503
        _, listed = await get(server, "rollouts")
        assert [rollout["new_version"] for rollout in listed["rollouts"]] == ["2"]


@story
async def test_restore_point_is_made_shown_and_compared(home: Path, double: MlflowDouble) -> None:
    """With the present and with another; no secret is in it."""
    async with station(home, double) as server:
        await server.serves("1")
        status, first = await post(server, "restore-points", model="m", reason="good")
        assert (status, first["champion"], first["created_by"]) == (201, "1", "admin")
        assert ADMIN["X-API-Key"] not in str(first)
        double.point("m", "2")
        await server.serves("2")
        _, second = await post(server, "restore-points", model="m")
        for other in ("now", second["id"]):
            _, shown = await get(server, f"restore-points/{first['id']}?diff={other}")
            changed = {each["path"]: (each["then"], each["now"]) for each in shown["diff"]}
            assert changed["model.aliases.champion"] == ("1", "2")
        _, listed = await get(server, "restore-points?model=m")
        assert [point["id"] for point in listed["restore_points"]] == [second["id"], first["id"]]
        assert (await post(server, "restore-points", model="nope"))[0] == 404
        assert (await post(server, "restore-points", reason="of nothing"))[0] == 400
        assert (await get(server, f"restore-points/{NEVER}"))[0] == 404


@story
async def test_freeze_refuses_promotions_until_it_is_lifted(home: Path, double: MlflowDouble) -> None:
    """Of every model too; a rollback stays possible."""
    async with station(home, double) as server:
        await server.serves("1")
        double.point("m", "2")
        await server.serves("2")
        assert (await post(server, "freezes", until="soon"))[0] == 400
        assert (await post(server, "freezes", until="2999-01-01T00:00:00Z", reason="sale"))[0] == 201
        status, told = await post(server, "update-models", model="m", version=3)
        assert (status, "frozen by admin until 2999" in told["error"]) == (409, True)
        assert (await server.roll_back()).status_code == 202
        _, listed = await get(server, "freezes")
        assert [freeze["reason"] for freeze in listed["freezes"]] == ["sale"]
        assert (await post(server, "freezes", lift=True))[0] == 200
        assert (await post(server, "freezes", lift=True))[0] == 404
        assert (await post(server, "update-models", model="m", version=3))[0] == 503
