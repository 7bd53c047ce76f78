"""Following the traffic tag: every state of the registry up to a promotion has its answer."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serving.core.traffic import Why, goes_to_challenger
from serving.store import workers
from serving.store.workers import WorkerModel
from tests.mlflow_double import Fault, MlflowDouble
from tests.models import onnx_adder, onnx_wrong_shape
from tests.station import Station, station
from tests.story import eventually, story

TAG = "signalbox.traffic"


def key_between(low: int, high: int) -> str:
    """A key that is the challenger's at `high` percent and not yet at `low`."""
    keys = map(str, range(10_000))
    return next(
        key for key in keys if goes_to_challenger("m", key, high) and not goes_to_challenger("m", key, low)
    )


EARLY, LATER, NEVER = key_between(0, 5), key_between(5, 25), key_between(99, 100)


@pytest.fixture
def double(double: MlflowDouble, tmp_path: Path) -> MlflowDouble:
    """Version N of model `m` adds N; champion 1, challenger 2, and a fourth that is refused."""
    double.add("m", *[onnx_adder(tmp_path / "models" / str(n), float(n)) for n in (1, 2, 3)])
    double.add("m", onnx_wrong_shape(tmp_path / "models" / "bad"))
    double.point("m", "1")
    double.point("m", "2", "challenger")
    return double


def split(double: MlflowDouble, percent: object, challenger: str = "2", rollout: str | None = "r-1") -> None:
    double.models["m"].tags[TAG] = json.dumps(
        {"challenger": challenger, "percent": percent, "rollout": rollout}
    )


async def answered(server: Station, key: str, address: str | None = None) -> tuple[str, str]:
    """Version and variant that a request with this key meets."""
    answer = await server.infer(headers={"x-request-key": key}, address=address)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-model-version"], answer.headers["x-model-variant"]


async def meets(server: Station, key: str, version: str) -> None:
    async def met() -> bool:
        answer = await server.infer(headers={"x-request-key": key})
        return bool(answer.headers.get("x-model-version") == version)

    await eventually(met, f"key {key} meets version {version}")


async def beaten(server: Station, met: Callable[[WorkerModel], bool], what: str) -> WorkerModel:
    """The worker's report once it is as wished."""

    def report() -> WorkerModel | None:
        beats = workers.live(server.engine, datetime.now(UTC))
        return beats[0].models.get("m") if beats else None

    await eventually(lambda: (seen := report()) is not None and met(seen), what)
    seen = report()
    assert seen is not None
    return seen


@story
async def test_split_follows_its_tag_up_and_down(home: Path, double: MlflowDouble) -> None:
    """Sticky and nested; whoever names a version gets exactly that; audited once each."""
    split(double, 5)
    async with station(home, double) as server:
        await meets(server, EARLY, "2")
        assert await answered(server, EARLY) == ("2", "challenger")
        assert await answered(server, LATER) == ("1", "champion")
        split(double, 25)
        await meets(server, LATER, "2")
        assert [await answered(server, key) for key in (EARLY, NEVER)] == [
            ("2", "challenger"),
            ("1", "champion"),
        ]
        assert await answered(server, EARLY, "champion") == ("1", "champion")
        assert await answered(server, EARLY, "1") == ("1", "direct")
        assert await answered(server, NEVER, "challenger") == ("2", "challenger")
        split(double, 0)
        await meets(server, EARLY, "1")
        split(double, 100)
        await meets(server, NEVER, "2")
        del double.models["m"].tags[TAG]
        await meets(server, EARLY, "1")
        applied = [
            (row["details"]["from_percent"], row["details"]["percent"])
            for row in await server.audit("traffic")
        ]
        assert applied == [(0, 5), (5, 25), (25, 0), (0, 100), (100, 0)]


@story
async def test_share_of_requests_without_a_key_is_as_asked(home: Path, double: MlflowDouble) -> None:
    """By an id of the server's own: a caller's constant ids in header or body move nothing."""
    split(double, 50)
    async with station(home, double) as server:
        await meets(server, EARLY, "2")
        counted = {"1": 0, "2": 0}
        for _ in range(200):
            answer = await server.infer(headers={"x-request-id": "always-the-same"})
            counted[answer.headers["x-model-version"]] += 1
        assert 65 < counted["2"] < 135


@pytest.mark.parametrize(
    ("tag", "aliases", "reason"),
    [
        pytest.param(None, {}, None, id="no-tag"),
        pytest.param("{", {}, Why.UNREADABLE, id="unreadable"),
        pytest.param('{"challenger": "2", "percent": 25.5}', {}, Why.UNREADABLE, id="half-percent"),
        pytest.param('{"challenger": "3", "percent": 100}', {}, Why.OTHER_CHALLENGER, id="another-version"),
        pytest.param(
            '{"challenger": "2", "percent": 100}',
            {"challenger": None},
            Why.NO_CHALLENGER,
            id="percent-without-challenger",
        ),
        pytest.param(
            '{"challenger": "1", "percent": 100}', {"challenger": "1"}, Why.SAME_VERSION, id="same-version"
        ),
        pytest.param(
            '{"challenger": "4", "percent": 100}', {"challenger": "4"}, "was refused", id="challenger-refused"
        ),
    ],
)
@story
async def test_champion_answers_all_when_the_tag_does_not_count(
    home: Path, double: MlflowDouble, tag: str | None, aliases: dict[str, str | None], reason: str | None
) -> None:
    """Each state of the registry on the way is defined, and model-info says which it is."""
    if tag is not None:
        double.models["m"].tags[TAG] = tag
    for alias, version in aliases.items():
        double.point("m", version, alias)
    async with station(home, double) as server:
        await server.serves("1")

        async def explained() -> bool:
            said = (await server.info())["traffic"]["reason"]
            return said is None if reason is None else said is not None and str(reason) in said

        await eventually(explained, f"reason {reason}")
        await server.turns(3)
        assert await answered(server, EARLY) == ("1", "champion")
        state = (await server.http.get("/api/v2/traffic/m", headers={"x-api-key": "k" * 43})).json()
        assert (state["champion"], state["percent"], state["rollout"]) == ("1", 0, None)


@story
async def test_unreadable_tag_is_told_once_and_again_when_it_changes(
    home: Path, double: MlflowDouble
) -> None:
    """However often it is read."""
    double.models["m"].tags[TAG] = "25 %"
    async with station(home, double) as server:
        await eventually(lambda: "traffic_unreadable" in server.notices(), "the notice")
        await server.turns(3)
        assert len(await server.audit("traffic")) == 1
        double.models["m"].tags[TAG] = "50 %"

        async def told_again() -> bool:
            return len(await server.audit("traffic")) == 2

        await eventually(told_again, "the second one")


@story
async def test_nothing_is_routed_to_a_challenger_when_there_is_no_champion(
    home: Path, double: MlflowDouble
) -> None:
    """It can be asked for by name; plain requests say what is missing."""
    double.point("m", None)
    split(double, 100)
    async with station(home, double) as server:
        await server.serves("2", address="challenger")
        await server.turns(3)
        answer = await server.infer(headers={"x-request-key": EARLY})
        assert answer.status_code == 404
        assert "has no champion; available: challenger, 2" in answer.json()["error"]
        assert (await server.info())["traffic"]["reason"] == Why.NO_CHAMPION


@story
async def test_split_ends_when_the_challenger_alias_is_deleted_at_half(
    home: Path, double: MlflowDouble
) -> None:
    """Whoever deletes it aborts; the tag that was left means nothing."""
    split(double, 50)
    async with station(home, double) as server:
        await meets(server, EARLY, "2")
        double.point("m", None, "challenger")
        await meets(server, EARLY, "1")
        await server.turns(2)
        assert (await server.info())["traffic"]["served"] is None


@story
async def test_tag_of_another_environment_is_not_ours(home: Path, double: MlflowDouble) -> None:
    """Dev, staging and production share one registry."""
    split(double, 100)
    double.models["m"].tags[f"prod-{TAG}"] = double.models["m"].tags.pop(TAG)
    async with station(home, double) as server:
        await server.serves("2", address="challenger")
        await server.turns(3)
        assert await answered(server, EARLY) == ("1", "champion")
        assert (await server.info())["traffic"] == {"wanted": None, "served": None, "reason": None}


@story
async def test_tag_of_our_environment_is_followed(home: Path, double: MlflowDouble) -> None:
    double.point("m", "1", "prod-champion")
    double.point("m", "2", "prod-challenger")
    split(double, 100)
    double.models["m"].tags[f"prod-{TAG}"] = double.models["m"].tags.pop(TAG)
    async with station(home, double, env="prod") as server:
        await meets(server, EARLY, "2")


@story
async def test_split_begins_when_its_challenger_is_served_at_last(home: Path, double: MlflowDouble) -> None:
    """The tag may come before the version: a replica that is slow to load is not wrong meanwhile."""
    double.point("m", "4", "challenger")
    split(double, 100, "4")
    async with station(home, double) as server:
        await server.refuses("4", "failed its self-test", "challenger")
        assert await answered(server, EARLY) == ("1", "champion")
        double.point("m", "3", "challenger")
        split(double, 100, "3")
        await meets(server, EARLY, "3")


@story
async def test_nobody_meets_the_old_champion_again_when_the_challenger_wins(
    home: Path, double: MlflowDouble
) -> None:
    """At 100 % the alias moves, tag and alias go: one version from the first to the last request."""
    split(double, 100)
    async with station(home, double) as server:
        await meets(server, NEVER, "2")
        double.models["m"].tags.pop(TAG)
        double.models["m"].aliases.update({"champion": "2"})
        double.point("m", None, "challenger")

        async def is_champion() -> bool:
            version, variant = await answered(server, NEVER)
            assert version == "2"
            return variant == "champion"

        await eventually(is_champion, "the challenger is champion")
        await server.turns(2)
        assert (await server.info())["traffic"]["served"] is None


@story
async def test_restart_serves_the_same_split_without_the_registry(home: Path, double: MlflowDouble) -> None:
    """From the local record and cache; and follows on when MLflow is back."""
    split(double, 25)
    async with station(home, double) as server:
        await meets(server, LATER, "2")
    double.fault = Fault(500)
    async with station(home, double) as server:
        assert await answered(server, LATER) == ("2", "challenger")
        assert await answered(server, NEVER) == ("1", "champion")
        assert (await server.info())["traffic"]["served"]["rollout"] == "r-1"
        split(double, 5)
        double.fault = None
        await meets(server, LATER, "1")
        assert await answered(server, EARLY) == ("2", "challenger")


@story
async def test_split_is_not_shown_when_it_cannot_be_made_durable(home: Path, double: MlflowDouble) -> None:
    """And is tried again until it can."""
    async with station(home, double) as server:
        await server.serves("2", address="challenger")
        await server.names(None, "previous")
        record = home / "serving" / "served.json"
        record.unlink()
        record.mkdir()
        split(double, 100)
        await server.turns(4)
        assert await answered(server, EARLY) == ("1", "champion")
        record.rmdir()
        await meets(server, EARLY, "2")


@story
async def test_worker_reports_its_split_with_a_proof_from_after_the_change(
    home: Path, double: MlflowDouble
) -> None:
    """What a promotion waits for before it counts a stage as begun."""
    async with station(home, double) as server:
        seen = await beaten(server, lambda m: m.challenger == "2", "the challenger")
        assert (seen.champion, seen.percent, seen.rollout) == ("1", 0, None)
        before = datetime.now(UTC)
        split(double, 25)

        def is_proven(model: WorkerModel) -> bool:
            proof = model.challenger_proof
            return model.percent == 25 and proof is not None and proof.started_at > before

        seen = await beaten(server, is_proven, "a proof of the split")
        assert seen.rollout == "r-1"
        assert seen.challenger_proof is not None
        assert seen.challenger_proof.version == "2"
        assert len(seen.challenger_proof.digest) == 64


@story
async def test_worker_reports_why_it_does_not_serve_the_challenger(home: Path, double: MlflowDouble) -> None:
    double.point("m", "4", "challenger")
    split(double, 25, "4")
    async with station(home, double) as server:
        seen = await beaten(server, lambda m: bool(m.challenger_refused), "the refusal")
        assert "self-test" in seen.challenger_refused["4"]
        assert (seen.refused, seen.challenger, seen.percent) == ({}, None, 0)
