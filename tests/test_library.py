"""How dear each version of a model is to a server that has no room for all of them."""

from datetime import UTC, datetime

import pytest

from serving.core.budget import Standing
from serving.core.model import Alias, Tag
from serving.followed import FollowedModel
from serving.library import standing_of
from serving.store.registry import RegisteredModel
from serving.watch import Watch
from tests.versions import loaded

UNTIL = datetime(2026, 1, 1, tzinfo=UTC)


def digits(*, is_critical: bool, is_watched: bool) -> FollowedModel:
    """Version 2 is champion, 1 stands in for it, 3 is the challenger."""
    tags: dict[str, str] = {Tag.CRITICAL: "true"} if is_critical else {}
    return FollowedModel(
        "digits",
        RegisteredModel("digits", 0, {}, tags, ""),
        served={Alias.CHAMPION: loaded("2"), Alias.CHALLENGER: loaded("3")},
        previous=loaded("1"),
        watch=Watch("2", "1", False, UNTIL) if is_watched else None,
    )


@pytest.mark.parametrize(
    ("is_critical", "is_watched", "champion", "stand_in"),
    [
        # Equal: the longest unused goes, which a champion that is asked never is.
        (False, False, Standing.SERVED, Standing.SERVED),
        (False, True, Standing.SERVED, Standing.PINNED),
        (True, False, Standing.PINNED, Standing.SERVED),
        (True, True, Standing.PINNED, Standing.PINNED),
    ],
)
def test_standing_is_of_the_champion_and_its_stand_in_before_others(
    is_critical: bool, is_watched: bool, champion: Standing, stand_in: Standing
) -> None:
    """Critical champions never go, stand-ins not while the new champion is watched."""
    model = digits(is_critical=is_critical, is_watched=is_watched)
    models = {"digits": model}
    assert model.previous is not None
    assert standing_of(models, model.served[Alias.CHAMPION]) is champion
    assert standing_of(models, model.previous) is stand_in
    assert standing_of(models, model.served[Alias.CHALLENGER]) is Standing.PLAIN
    assert standing_of({}, model.previous) is Standing.PLAIN


def test_standing_is_pinned_when_a_change_needs_the_version() -> None:
    """Whoever is about to be served must not go before it is."""
    model = digits(is_critical=False, is_watched=False)
    with model.keeping(model.served[Alias.CHALLENGER]):
        assert standing_of({"digits": model}, model.served[Alias.CHALLENGER]) is Standing.PINNED
