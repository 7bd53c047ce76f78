"""What the registry is still to be told of an override: only while it names the version that was left."""

from datetime import UTC, datetime

import pytest

from serving.store.follow_up import follow_up
from serving.store.guard import TrafficWish, Wish
from serving.store.overrides import Override
from serving.store.registry import RegisteredModel

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TAG = "signalbox.traffic"
OURS = '{"challenger": "7", "percent": 25}'
OTHERS = '{"challenger": "8", "percent": 25}'


def override(role: str, not_version: str, answer_with: str | None) -> Override:
    return Override("o", "digits", role, not_version, answer_with, "ann", "it fails", NOW)


BACK = override("champion", "4", "3")
EJECTED = override("challenger", "7", None)
ALIAS = Wish("digits", "challenger", None, "ann", "it fails", frozenset({"7"}))


@pytest.mark.parametrize(
    ("laid", "aliases", "tag", "wishes"),
    [
        pytest.param(
            BACK,
            {"champion": "4"},
            None,
            [Wish("digits", "champion", "3", "ann", "it fails", frozenset({"4"}))],
            id="rollback",
        ),
        pytest.param(BACK, {"champion": "5"}, None, [], id="a-hand-promoted"),
        pytest.param(BACK, {}, None, [], id="alias-gone"),
        pytest.param(
            BACK,
            {"champion": "4", "challenger": "7"},
            OURS,
            [Wish("digits", "champion", "3", "ann", "it fails", frozenset({"4"}))],
            id="rollback-beside-a-split",
        ),
        pytest.param(
            EJECTED,
            {"challenger": "7"},
            OURS,
            [TrafficWish("digits", None, "ann", "it fails", frozenset({OURS})), ALIAS],
            id="ejection",
        ),
        pytest.param(EJECTED, {"challenger": "7"}, None, [ALIAS], id="tag-gone-already"),
        pytest.param(EJECTED, {"challenger": "7"}, OTHERS, [ALIAS], id="anothers-tag"),
        pytest.param(EJECTED, {"challenger": "7"}, "{", [ALIAS], id="unreadable-tag"),
        pytest.param(EJECTED, {"challenger": "8"}, OTHERS, [], id="a-hand-chose-another"),
    ],
)
def test_follow_up(
    laid: Override, aliases: dict[str, str], tag: str | None, wishes: list[Wish | TrafficWish]
) -> None:
    """The tag before the alias, whose end ends the override."""
    tags = {} if tag is None else {TAG: tag}
    assert follow_up(laid, RegisteredModel("digits", 1, aliases, tags, "")) == wishes
