"""The laws of succession: who was champion, who stands in, and who never does again."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.errors import StoreUnavailable
from serving.core.model import VersionRef
from serving.core.traffic import Split
from serving.followed import FollowedModel, as_served
from serving.routes import Routes
from serving.store.record import Record
from serving.visibility import Visibility
from serving.watch import AnswerWindow
from tests.versions import BORN_MS, CACHE, key, loaded, served

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIVE_MINUTES = timedelta(seconds=300)


def model_with(*champions: str) -> FollowedModel:
    """A model whose champions came one after another."""
    model = FollowedModel("digits")
    for version in champions:
        promote(model, version)
    return model


def promote(model: FollowedModel, version: str, left: str | None = None) -> None:
    """What the follower does when the alias names `version`."""
    new = loaded(version)
    model.succeed(new, as_served(new, CACHE), left, NOW, FIVE_MINUTES)
    model.served["champion"] = new


def history(model: FollowedModel) -> list[str]:
    return [champion.version for champion in model.champions]


def standing_in(model: FollowedModel) -> str | None:
    return model.previous.ref.version if model.previous is not None else None


@pytest.mark.parametrize(
    ("champion", "challenger", "split", "in_effect"),
    [
        pytest.param("1", "2", Split("2", 25), True, id="both-served"),
        pytest.param("1", None, Split("2", 25), False, id="challenger-not-served"),
        pytest.param("1", "3", Split("2", 25), False, id="another-challenger"),
        pytest.param("2", "2", Split("2", 25), False, id="challenger-won"),
        pytest.param(None, "2", Split("2", 25), False, id="no-champion"),
        pytest.param("1", "2", None, False, id="no-split"),
    ],
)
def test_split_is_in_effect_while_both_its_versions_are_served(
    champion: str | None, challenger: str | None, split: Split | None, in_effect: bool
) -> None:
    """Whatever is on record: requests never wait for a version to come."""
    model = FollowedModel("digits", split=split)
    for alias, version in (("champion", champion), ("challenger", challenger)):
        if version is not None:
            model.served[alias] = loaded(version)
    assert model.routes().split == (split if in_effect else None)


def test_split_is_told_once_when_it_changes_for_requests(tmp_path: Path) -> None:
    """Also where a swap ends it: the challenger became champion."""
    model, told = FollowedModel("digits"), []
    visibility = Visibility({"digits": model}, Record(tmp_path / "r"), Routes(), CACHE)
    visibility.tell(lambda model, before: told.append((before, model.shown_split)))
    half = Split("2", 50)
    model.served |= {"champion": loaded("1"), "challenger": loaded("2")}
    for split in (None, half, half):
        model.split = split
        visibility.show(model)
    model.served["champion"] = model.served["challenger"]
    visibility.show(model)
    assert told == [(None, half), (half, None)]


def test_first_champion_has_no_stand_in_and_no_watch() -> None:
    """There is nothing to go back to."""
    model = model_with("1")
    assert (history(model), standing_in(model), model.watch) == (["1"], None, None)


def test_new_champion_is_watched_with_the_old_one_standing_in() -> None:
    """For the time the settings say, from the swap on, with a fresh window."""
    model = model_with("1")
    window = model.window
    promote(model, "2")
    assert (history(model), standing_in(model)) == (["1", "2"], "1")
    assert model.watch is not None
    assert (model.watch.version, model.watch.previous) == ("2", "1")
    assert model.watch.until == NOW + FIVE_MINUTES
    assert model.window is not window
    assert model.swapped_at == NOW


def test_going_back_by_hand_makes_the_left_version_previous() -> None:
    """The hand's choice: what it left did not fail."""
    model = model_with("1", "2", "1")
    assert (history(model), standing_in(model)) == (["2", "1"], "2")


def test_version_that_a_rollback_left_never_becomes_previous() -> None:
    """Neither as stand-in nor in the history, and the rollback is not itself watched."""
    model = model_with("1", "2")
    promote(model, "1", left="2")
    assert (history(model), standing_in(model), model.watch) == (["1"], None, None)
    assert model.previous_record is None


def test_earlier_champion_stands_in_again_after_a_rollback() -> None:
    """The last one before that did not fail."""
    model = model_with("1", "2", "3")
    promote(model, "2", left="3")
    assert history(model) == ["1", "2"]
    assert model.previous_record == served("1")


def test_rolled_back_version_counts_again_when_somebody_promotes_it() -> None:
    """An explicit choice ends the ejection."""
    model = model_with("1", "2")
    promote(model, "1", left="2")
    promote(model, "2")
    assert (history(model), standing_in(model)) == (["1", "2"], "1")


def test_stand_in_stays_when_the_champion_itself_could_not_be_restored() -> None:
    """After a restart with a damaged copy the history still knows the way back."""
    model = FollowedModel("digits")
    model.previous = loaded("1")
    promote(model, "3")
    assert standing_in(model) == "1"
    model = FollowedModel("digits")
    model.previous = loaded("1")
    promote(model, "1")
    assert (standing_in(model), model.watch) == (None, None)


def test_namesake_of_a_model_registered_anew_is_another_champion() -> None:
    """Number 1 again, but not the same version."""
    model = model_with("1")
    model.crown(served("1", created_ms=BORN_MS + 1))
    assert history(model) == ["1", "1"]


@given(st.lists(st.tuples(st.sampled_from("123456789"), st.booleans()), min_size=1, max_size=40))
def test_history_ends_with_the_champion_and_never_holds_what_failed(moves: list[tuple[str, bool]]) -> None:
    """Whatever is promoted and rolled back in whatever order."""
    model, failed = FollowedModel("digits"), set[str]()
    for version, is_rollback in moves:
        champion = model.champion.ref.version if model.champion else None
        if version == champion:
            continue
        if is_rollback and champion is not None:
            failed.add(champion)
        failed.discard(version)
        promote(model, version, left=champion if is_rollback else None)
        assert history(model)[-1] == version
        assert len(set(history(model))) == len(history(model)) <= 10
        assert not failed & set(history(model))
        assert standing_in(model) not in failed | {version}


def test_history_is_bounded() -> None:
    """The oldest are forgotten."""
    model = model_with(*[str(n) for n in range(1, 15)])
    assert history(model) == [str(n) for n in range(5, 15)]


def test_failed_change_is_put_back_whole() -> None:
    """What could not be made durable was never so."""
    model = model_with("1", "2")
    before, window, watch = model.standing(), model.window, model.watch
    model.window.add(1.0, failed=True)
    promote(model, "3")
    model.put_back(before)
    assert (history(model), standing_in(model)) == (["1", "2"], "1")
    assert model.champion is not None
    assert model.champion.ref.version == "2"
    assert model.window is window
    assert model.watch is watch


def test_chosen_version_is_in_use_while_it_waits_for_its_place() -> None:
    """Else a sweep would release it between its load and its swap."""
    model, chosen = model_with("1", "2"), loaded("3")
    with model.keeping(chosen):
        assert {version.ref.version for version in model.in_use()} == {"1", "2", "3"}
    assert {version.ref.version for version in model.in_use()} == {"1", "2"}


def test_dethroned_version_is_forgotten_in_every_life() -> None:
    """By number: whichever of its namesakes held the alias."""
    model = model_with("1", "2")
    model.dethrone(VersionRef("digits", "1"))
    assert history(model) == ["2"]


def test_key_is_of_the_registered_model_else_of_its_last_champion() -> None:
    """Also while MLflow is away since the start."""
    model = FollowedModel("digits")
    assert model.key_of("7") == key("7", created_ms=0)
    model.crown(served("1"))
    assert model.key_of("7") == key("7")


def test_change_is_on_disk_before_it_is_visible(tmp_path: Path) -> None:
    """A restart may come at any moment."""
    model, routes, record = model_with("1", "2"), Routes(), Record(tmp_path / "served.json")
    visibility = Visibility({"digits": model}, record, routes, CACHE)
    asyncio.run(visibility.publish(model))
    assert routes.find("digits", None).version is model.champion
    [written] = record.read().values()
    assert written.aliases["champion"] == served("2")
    assert [champion.version for champion in written.champions] == ["1", "2"]
    assert written.watch is not None
    assert written.watch.until == NOW + FIVE_MINUTES


def test_change_is_not_visible_when_the_disk_refuses_it(tmp_path: Path) -> None:
    """Nothing is shown that a restart would forget."""
    (tmp_path / "served.json").mkdir()
    model, routes = model_with("1"), Routes()
    visibility = Visibility({"digits": model}, Record(tmp_path / "served.json"), routes, CACHE)
    with pytest.raises(StoreUnavailable, match="local record could not be written"):
        asyncio.run(visibility.publish(model))
    assert routes.names() == []


def test_window_starts_empty() -> None:
    """Each model has its own."""
    assert FollowedModel("a").window is not FollowedModel("b").window
    assert AnswerWindow().evidence(0.0).answers == 0
