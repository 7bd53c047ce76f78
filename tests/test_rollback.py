"""The way back: at once, durable before traffic moves, and never to a version that is broken itself."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from serving.core.clock import ManualClock
from tests.mlflow_double import Fault, MlflowDouble
from tests.models import onnx_adder, onnx_raises_on_negative
from tests.station import ADMIN, Station, station
from tests.story import eventually, story

BAD_ROW = (-1.0, 1.0, 1.0)


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    """Versions 1 to 3 add their number, 4 fails on negative input; champion is 1."""
    double.add("m", *[onnx_adder(tmp_path / "models" / str(n), float(n)) for n in (1, 2, 3)])
    double.add("m", onnx_raises_on_negative(tmp_path / "models" / "4"))
    double.point("m", "1")
    return double


async def promote(server: Station, *versions: str) -> None:
    """Move the alias by hand, one version after another."""
    for version in versions:
        server.double.point("m", version)
        await server.serves(version)


def overrides_on_disk(home: Path) -> list[tuple[str, str]]:
    laid = json.loads((home / "serving" / "overrides.json").read_bytes())["overrides"]
    return [(entry["not_version"], entry["answer_with"]) for entry in laid]


@pytest.mark.parametrize("strategy", [None, "instant", "emergency"])
@story
async def test_rollback_answers_with_the_last_good_version_at_once(
    home: Path, double: MlflowDouble, strategy: str | None
) -> None:
    """Traffic has moved when the call returns; the registry follows, audited under the key's name."""
    async with station(home, double) as server:
        await promote(server, "1", "2")
        answer = await server.roll_back(strategy=strategy, reason="looks wrong")
        assert answer.status_code == 202
        assert await server.version() == "1"
        told = answer.json()
        assert (told["from"], told["to"]) == ("2", "1")
        await server.names("1")
        [row] = await server.audit("roll_back")
        assert (row["actor"], row["version"], row["details"]["reason"]) == ("admin", "1", "looks wrong")
        await eventually(lambda: "rolled_back" in server.notices(), "people are told")

        async def settled() -> bool:
            status = await server.http.get(told["status_url"], headers=ADMIN)
            return bool(status.json()["registry"] == "settled")

        await eventually(settled, "the registry is settled")


@story
async def test_rollback_holds_while_mlflow_is_down_and_reaches_it_later(
    home: Path, double: MlflowDouble
) -> None:
    """On the local disk at once, in the registry when that is back."""
    async with station(home, double) as server:
        await promote(server, "1", "2")
        double.fault = Fault(500)
        assert (await server.roll_back(strategy="emergency")).status_code == 202
        assert overrides_on_disk(home) == [("2", "1")]
        await server.turns(3)
        assert await server.version() == "1"
        double.fault = None
        await server.turns(3)
        assert await server.version() == "1"
        await server.names("1")
        await eventually(lambda: overrides_on_disk(home) == [], "the override ended")


@story
async def test_rollback_works_without_the_state_store(home: Path, double: MlflowDouble) -> None:
    """The local file is enough; what happened is journalled."""
    async with station(home, double) as server:
        await promote(server, "1", "2")
        with closing(sqlite3.connect(home / "signalbox.db", isolation_level=None)) as locker:
            locker.execute("BEGIN IMMEDIATE")
            answer = await server.roll_back(strategy="emergency")
            assert answer.status_code == 202
            assert await server.version() == "1"
            assert overrides_on_disk(home) == [("2", "1")]


@story
async def test_hands_choice_wins_when_the_alias_moved_meanwhile(home: Path, double: MlflowDouble) -> None:
    """An override names the version it was laid against; another is another choice."""
    async with station(home, double) as server:
        await promote(server, "1", "2")
        double.fault = Fault(500)
        await server.roll_back()
        double.point("m", "3")
        double.fault = None
        await server.serves("3")
        assert double.named("m") == "3"
        assert (await server.info())["previous"] == "1"


@story
async def test_rolled_back_version_never_becomes_previous_and_may_be_promoted_again(
    home: Path, double: MlflowDouble
) -> None:
    """Neither here nor in the registry; a hand may choose it again all the same."""
    async with station(home, double) as server:
        await promote(server, "1", "2", "3")
        await server.names("2", "previous")
        await server.roll_back()
        await server.names("2")
        await server.names("1", "previous")
        assert (await server.info())["previous"] == "1"
        await promote(server, "3")
        await server.names("2", "previous")


@story
async def test_rollback_goes_to_a_named_version(home: Path, double: MlflowDouble) -> None:
    """Also one that was never champion here: it is loaded and tested first."""
    async with station(home, double) as server:
        await promote(server, "1", "2")
        assert (await server.roll_back(version=3)).json()["to"] == "3"
        assert await server.version() == "3"
        await server.names("3")
        await server.names("1", "previous")


@story
async def test_going_back_to_what_the_registry_names_ends_the_override(
    home: Path, double: MlflowDouble
) -> None:
    """There is nothing to write; an override that answered itself would never end."""
    async with station(home, double) as server:
        await promote(server, "1", "2")
        double.fault = Fault(500, where="alias")
        await server.roll_back()
        assert await server.version() == "1"
        assert (await server.roll_back(version="2")).status_code == 202
        assert await server.version() == "2"
        assert overrides_on_disk(home) == []
        await server.turns(5)  # a write of the ended override that was under way has failed by then
        double.fault = None
        await server.turns(3)
        assert await server.version() == "2"
        assert double.named("m") == "2"


REFUSALS: tuple[tuple[dict[str, object], int, str], ...] = (
    ({"model": "nope"}, 404, "has no champion to roll back; available: m"),
    ({"version": "1"}, 409, "answers already"),
    ({"version": "9"}, 404, "has no version 9"),
    ({"version": "two"}, 400, "'version' must be a version number"),
    ({"version": "-1"}, 400, "'version' must be"),
    ({}, 409, "has no earlier healthy version"),
    ({"strategy": "gradual"}, 409, "has no earlier healthy version"),
    ({"strategy": "slow"}, 400, "strategy 'slow' is not one of instant, gradual, emergency"),
    ({"restore_point": "7"}, 404, "there is no restore point '7'"),
    ({"restore_point": "7", "version": 2}, 400, "name one of restore_point, version and at"),
    ({"at": "2020-01-01T00:00:00Z"}, 404, "nothing is on record of what answered"),
    ({"at": "yesterday"}, 400, "'at' must be a time like"),
    ({"until": "tomorrow"}, 400, "'until' is not supported here"),
    ({"stages": [50]}, 400, "'stages' is for strategy gradual only"),
    ({"strategy": "gradual", "stages": [25, 50]}, 400, "'stages' must be falling whole percents"),
    ({"strategy": "gradual", "stage_seconds": -1}, 400, "'stage_seconds' must be a number from 0"),
    ({"allow_signature_change": 1}, 400, "'allow_signature_change' must be true or false"),
    ({"model": 7}, 400, 'must be an object with "model"'),
)


@story
async def test_rollback_is_refused_in_one_sentence(home: Path, double: MlflowDouble) -> None:
    """And nothing has moved."""
    async with station(home, double) as server:
        await server.serves("1")
        for wish, status, problem in REFUSALS:
            answer = await server.roll_back(**wish)
            assert answer.status_code == status, wish
            assert problem in answer.json()["error"]
            assert await server.version() == "1"
        assert not (home / "serving" / "overrides.json").exists()


@story
async def test_rollback_is_refused_when_the_body_is_no_json(home: Path, double: MlflowDouble) -> None:
    """400, not 500."""
    async with station(home, double) as server:
        for content in (b"", b"[", b"[]", b'"m"'):
            answer = await server.http.post("/api/v2/rollback", content=content, headers=ADMIN)
            assert answer.status_code == 400


@story
async def test_rollback_is_refused_when_the_override_cannot_be_written(
    home: Path, double: MlflowDouble
) -> None:
    """Durable before traffic moves, or not at all."""
    async with station(home, double) as server:
        await promote(server, "1", "2")
        (home / "serving" / "overrides.json").unlink(missing_ok=True)
        (home / "serving" / "overrides.json").mkdir()
        answer = await server.roll_back()
        assert answer.status_code == 503
        assert "override could not be written" in answer.json()["error"]
        assert await server.version() == "2"


@story
async def test_rollback_moves_traffic_when_only_the_record_cannot_be_written(
    home: Path, double: MlflowDouble
) -> None:
    """The override is durable, so a restart comes to the same answer."""
    async with station(home, double) as server:
        await promote(server, "1", "2")
        await server.serves("1", address="previous")
        (home / "serving" / "served.json").unlink()
        (home / "serving" / "served.json").mkdir()
        assert (await server.roll_back()).status_code == 202
        assert await server.version() == "1"


async def fail(server: Station, times: int = 5) -> list[str]:
    """Variants of the answers to input that version 4 fails on."""
    answers = [await server.infer(*BAD_ROW) for _ in range(times)]
    assert all(answer.status_code == 200 for answer in answers)
    return [answer.headers["x-model-variant"] for answer in answers]


@story
async def test_failing_champion_is_answered_for_and_rolled_back_by_itself(
    home: Path, double: MlflowDouble
) -> None:
    """Passes its self-test on zeros, fails on real input: no caller notices, and it is gone."""
    async with station(home, double) as server:
        await promote(server, "1", "4")
        assert set(await fail(server)) == {"fallback"}
        await server.serves("1")
        await server.names("1")
        assert await fail(server) == ["champion"] * 5
        [row] = await server.audit("roll_back")
        assert row["actor"] == "serving:watch"
        assert "of 5 answers within 10 s failed" in row["details"]["reason"]
        await server.turns(3)
        assert await server.version() == "1"
        assert "4" not in (double.named("m"), double.named("m", "previous"))


@story
async def test_failing_champion_stays_when_the_watch_is_over(home: Path, double: MlflowDouble) -> None:
    """Answered for on each request, and alerted once."""
    clock = ManualClock()
    async with station(home, double, clock=clock, watch_seconds=300) as server:
        await promote(server, "1", "4")
        clock.advance(300)
        await fail(server, 8)
        await eventually(lambda: "champion_failing" in server.notices(), "the alert")
        assert await server.version() == "4"
        assert server.notices().count("champion_failing") == 1


@story
async def test_failing_champion_stays_when_a_hand_set_it_and_policy_says_so(
    home: Path, double: MlflowDouble
) -> None:
    """Somebody wanted it; they are told."""
    async with station(home, double, rollback_by_hand=False) as server:
        await promote(server, "1", "4")
        await fail(server)
        await eventually(lambda: "champion_failing" in server.notices(), "the alert")
        assert await server.version() == "4"


@story
async def test_failing_champion_stays_and_answers_500_when_there_is_nothing_before_it(
    home: Path, double: MlflowDouble
) -> None:
    """A critical alert is all that is left."""
    double.point("m", "4")
    async with station(home, double) as server:
        await server.serves("4")
        for _ in range(5):
            assert (await server.infer(*BAD_ROW)).status_code == 500
        await eventually(lambda: "champion_failing" in server.notices(), "the alert")
        assert await server.version() == "4"


@story
async def test_rollback_is_not_itself_rolled_back(home: Path, double: MlflowDouble) -> None:
    """It went to a version that fails too: it stays, and people are told."""
    async with station(home, double) as server:
        await promote(server, "1", "4", "2")
        await server.roll_back(version="4")
        await server.names("4")

        async def is_warm() -> bool:
            return bool((await server.info())["previous"] == "1")

        await eventually(is_warm, "1 stands in")
        await fail(server)
        await eventually(lambda: "champion_failing" in server.notices(), "the alert")
        assert await server.version() == "4"


@story
async def test_newer_champion_is_left_alone_when_the_older_one_failed(
    home: Path, double: MlflowDouble
) -> None:
    """What a watch saw says nothing of the version a hand chose meanwhile."""
    async with station(home, double) as server:
        await promote(server, "1", "4")
        await fail(server, 4)
        double.point("m", "3")
        await fail(server, 3)
        await server.serves("3")
        await server.turns(3)
        assert await server.version() == "3"
        assert double.named("m") == "3"
