"""Following the registry: an alias moves, and traffic follows if the version is fit; else nothing changes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from serving.core.clock import ManualClock
from tests.mlflow_double import Fault, MlflowDouble
from tests.models import onnx_adder, onnx_nan, onnx_wrong_shape
from tests.station import station
from tests.story import eventually, story


@pytest.fixture
def adders(tmp_path: Path) -> Callable[..., list[Path]]:
    """Folders of models that add their number."""

    def make(*numbers: int) -> list[Path]:
        return [onnx_adder(tmp_path / "models" / str(n), float(n)) for n in numbers]

    return make


@pytest.fixture
def double(double: MlflowDouble, adders: Callable[..., list[Path]]) -> MlflowDouble:
    """Model `m`, where version N adds N; champion is version 1."""
    double.add("m", *adders(1, 2, 3))
    double.point("m", "1")
    return double


@story
async def test_champion_follows_its_alias(home: Path, double: MlflowDouble) -> None:
    """There and back, each time with the right answer."""
    async with station(home, double) as server:
        for version in ("1", "2", "1", "3"):
            double.point("m", version)
            await server.serves(version)
            answer = (await server.infer(1.0, 2.0, 3.0)).json()
            assert answer["outputs"][0]["data"] == [n + float(version) for n in (1, 2, 3)]
        swaps = [row for row in await server.audit("swap") if row["details"]["alias"] == "champion"]
        assert [row["version"] for row in swaps] == ["1", "2", "1", "3"]


@story
async def test_every_alias_is_an_address_while_it_is_set(home: Path, double: MlflowDouble) -> None:
    """By alias and by number; afterwards neither."""
    double.point("m", "2", "nightly")
    async with station(home, double) as server:
        await server.serves("2", address="nightly")
        assert await server.version(address="2") == "2"
        double.point("m", None, "nightly")
        await server.serves(None, address="nightly")
        assert await server.version(address="2") is None
        assert await server.version() == "1"


@story
async def test_old_version_answers_while_the_new_one_is_refused(
    home: Path, double: MlflowDouble, tmp_path: Path
) -> None:
    """The reason is shown, audited and told once, however often it is tried again."""
    double.add("m", onnx_wrong_shape(tmp_path / "bad"))
    async with station(home, double) as server:
        await server.serves("1")
        double.point("m", "4")
        await server.refuses("4", "failed its self-test")
        assert await server.version() == "1"
        assert await server.alias() | {"reason": ""} == {"wanted": "4", "served": "1", "reason": ""}
        await server.turns(5)
        [row] = await server.audit("refuse")
        assert (row["version"], row["details"]["answering"]) == ("4", "1")
        assert server.notices().count("version_refused") == 1
        double.point("m", "2")
        await server.serves("2")
        assert (await server.alias())["reason"] is None


@story
async def test_newer_wish_is_followed_at_once_when_the_older_was_refused(
    home: Path, double: MlflowDouble, tmp_path: Path
) -> None:
    """A refusal's waiting time is its own."""
    double.add("m", onnx_wrong_shape(tmp_path / "bad"))
    double.point("m", "4")
    async with station(home, double) as server:
        await server.refuses("4", "failed its self-test")
        assert await server.version() is None
        double.point("m", "2")
        await server.serves("2")


@story
async def test_version_is_refused_when_its_files_changed_after_the_first_load(
    home: Path, double: MlflowDouble, adders: Callable[..., list[Path]], tmp_path: Path
) -> None:
    """The digest on record is the first one seen; a changed payload is another model."""
    async with station(home, double) as server:
        await server.serves("1")
        double.point("m", "2")
        await server.serves("2")
    onnx_adder(tmp_path / "models" / "1", 77.0)
    for copy in (home / "cache" / "m").glob("1-*"):
        if copy.is_dir():
            (copy / "manifest.json").unlink()
    async with station(home, double) as server:
        await server.serves("2")
        double.point("m", "1")
        await server.refuses("1", "digest")
        assert await server.version() == "2"


@story
async def test_version_is_refused_when_its_digest_tag_names_other_files(
    home: Path, double: MlflowDouble
) -> None:
    """The tag of whoever registered it counts before our own record."""
    double.models["m"].versions["2"].tags["signalbox.digest"] = "0" * 64
    async with station(home, double) as server:
        await server.serves("1")
        double.point("m", "2")
        await server.refuses("2", "digest")
        assert await server.version() == "1"


@pytest.mark.parametrize(("tag", "is_served"), [(None, False), ("failed", False), ("passed", True)])
@story
async def test_version_needs_its_validation_tag_when_the_settings_say_so(
    home: Path, double: MlflowDouble, tag: str | None, is_served: bool
) -> None:
    """Moving an alias by hand does not get around it."""
    for version in double.models["m"].versions.values():
        version.tags["signalbox.validation"] = "passed"
    double.models["m"].versions["2"].tags = {} if tag is None else {"signalbox.validation": tag}
    async with station(home, double, require_validation=True) as server:
        await server.serves("1")
        double.point("m", "2")
        if is_served:
            await server.serves("2")
        else:
            await server.refuses("2", "not validated")
            assert await server.version() == "1"


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(500), id="500"),
        pytest.param(Fault(200, b"<html>"), id="garbage"),
        pytest.param(Fault(200, b"{}"), id="emptied"),
        pytest.param(
            Fault(200, b'{"registered_models": [{"name": "x", "creation_timestamp": 1}]}'), id="another"
        ),
    ],
)
@story
async def test_last_good_state_answers_while_the_registry_is_wrong(
    home: Path, double: MlflowDouble, fault: Fault
) -> None:
    """An empty registry is a fault, not a wish; what was missed is followed afterwards."""
    async with station(home, double, orphan_minutes=0) as server:
        await server.serves("1")
        double.fault = fault
        double.point("m", "2")
        await server.turns(3)
        assert await server.version() == "1"
        assert (await server.info())["registry_stale"]
        double.fault = None
        await server.serves("2")
        assert (await server.info())["registry_stale"] is None


@story
async def test_champion_without_alias_answers_for_its_minutes_and_then_no_longer(
    home: Path, double: MlflowDouble
) -> None:
    """Alert at once; 404 naming what exists at the end; back as soon as the alias is."""
    clock = ManualClock()
    double.point("m", "2", "nightly")
    async with station(home, double, clock=clock, orphan_minutes=10) as server:
        await server.serves("1")
        await server.serves("2", address="nightly")
        double.point("m", None)
        await eventually(lambda: "champion_orphaned" in server.notices(), "the alert")
        clock.advance(599)
        await server.turns()
        assert await server.version() == "1"
        clock.advance(1)
        await server.serves(None)
        error = (await server.infer()).json()["error"]
        assert "has no champion; available: nightly, 2" in error
        double.point("m", "1")
        await server.serves("1")


@story
async def test_grace_starts_anew_when_the_alias_came_back_in_between(
    home: Path, double: MlflowDouble
) -> None:
    """Two slips are two."""
    clock = ManualClock()
    async with station(home, double, clock=clock, orphan_minutes=10) as server:
        await server.serves("1")
        for _ in range(3):
            double.point("m", None)
            await server.turns()
            clock.advance(400)
            double.point("m", "1")
            await server.turns()
        assert await server.version() == "1"


@story
async def test_deleted_model_is_drained_while_others_answer_on(
    home: Path, double: MlflowDouble, adders: Callable[..., list[Path]]
) -> None:
    """The model is gone; its neighbour is not."""
    double.add("other", *adders(5))
    double.point("other", "1")
    async with station(home, double, orphan_minutes=0) as server:
        await server.serves("1")
        await server.serves("1", model="other")
        del double.models["m"]
        await server.serves(None)
        assert "available: other" in (await server.infer()).json()["error"]
        assert await server.version(model="other") == "1"


@story
async def test_namesake_is_loaded_anew_when_the_model_was_deleted_and_registered_again(
    home: Path, double: MlflowDouble, adders: Callable[..., list[Path]]
) -> None:
    """Version 1 again, but another model."""
    async with station(home, double) as server:
        await server.serves("1")
        [other] = adders(9)
        del double.models["m"]
        double.add("other", other)
        double.models["m"] = double.models.pop("other")
        double.models["m"].created_ms += 1000
        double.models["m"].versions["1"].logged_as = "models:/m-anew"
        double.point("m", "1")

        async def is_the_new_one() -> bool:
            return bool((await server.infer(0.0, 0.0, 0.0)).json()["outputs"][0]["data"] == [9.0, 9.0, 9.0])

        await eventually(is_the_new_one, "the namesake answers")


@story
async def test_webhook_shortens_the_wait_for_the_next_poll(home: Path, double: MlflowDouble) -> None:
    """A wake-up and no more: nothing in it is believed. Wired here to a forged one, which changes nothing."""
    async with station(home, double, poll_seconds=60) as server:
        await server.serves("1")
        polls = len(double.seen)
        double.point("m", "2")
        answer = await server.http.post("/api/v2/webhooks/mlflow", content=b"{}")
        assert answer.status_code == 401
        await server.roll_back(model="nope")
        assert len(double.seen) == polls
        assert await server.version() == "1"


@story
async def test_only_models_that_match_the_globs_are_followed(
    home: Path, double: MlflowDouble, adders: Callable[..., list[Path]]
) -> None:
    """Others exist for others."""
    double.add("other", *adders(5))
    double.point("other", "1")
    async with station(home, double, models="oth*, nothing") as server:
        await server.serves("1", model="other")
        assert (await server.http.get("/v2/models")).json() == {"models": ["other"]}


@story
async def test_environment_follows_its_own_aliases(home: Path, double: MlflowDouble) -> None:
    """Staging and production share one registry."""
    double.point("m", "3", "staging-champion")
    async with station(home, double, env="staging") as server:
        await server.serves("3")


@story
async def test_swap_waits_for_the_disk_when_the_record_cannot_be_written(
    home: Path, double: MlflowDouble
) -> None:
    """What a restart would forget is not shown; it is tried again every turn."""
    async with station(home, double) as server:
        await server.serves("1")
        record = home / "serving" / "served.json"
        kept = record.read_bytes()
        record.unlink()
        record.mkdir()
        double.point("m", "2")
        await server.turns(4)
        assert await server.version() == "1"
        record.rmdir()
        record.write_bytes(kept)
        await server.serves("2")
        assert (await server.info())["previous"] == "1"


@story
async def test_first_champion_is_served_though_the_registrys_previous_is_broken(
    home: Path, double: MlflowDouble, tmp_path: Path
) -> None:
    """The stand-in is a precaution, no condition."""
    double.add("m", tmp_path / "nothing")
    double.point("m", "4", "previous")
    async with station(home, double) as server:
        await server.serves("1")
        assert (await server.info())["previous"] is None


@story
async def test_first_champion_takes_the_registrys_previous_as_stand_in(
    home: Path, double: MlflowDouble, tmp_path: Path
) -> None:
    """A server without history of its own believes the copy."""
    double.add("m", onnx_nan(tmp_path / "nan"))
    double.point("m", "4")
    double.point("m", "1", "previous")
    async with station(home, double) as server:
        await server.serves("4")
        answer = (await server.infer(0.0, 0.0, 0.0)).json()
        assert (answer["model_version"], answer["parameters"]["variant"]) == ("1", "fallback")
        assert (await server.info())["previous"] == "1"
