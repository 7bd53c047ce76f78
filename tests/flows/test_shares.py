"""The share that MLflow's pages show: what aliases and traffic tag make of it."""

import pytest

from flows.shares import shares
from serving.core.model import Tag
from serving.core.traffic import Split, write_tag
from serving.store.registry import RegisteredModel

BOTH = {"champion": "1", "challenger": "2"}


@pytest.mark.parametrize(
    ("aliases", "tag", "expected"),
    [
        pytest.param({}, None, {}, id="nobody"),
        pytest.param({"champion": "1"}, None, {"1": 100}, id="champion-alone"),
        pytest.param(BOTH, None, {"1": 100}, id="no-split"),
        pytest.param(BOTH, Split("2", 0), {"1": 100, "2": 0}, id="nothing-yet"),
        pytest.param(BOTH, Split("2", 25), {"1": 75, "2": 25}, id="quarter"),
        pytest.param(BOTH, Split("2", 100), {"1": 0, "2": 100}, id="all"),
        pytest.param(BOTH, Split("3", 25), {"1": 100}, id="of-another-challenger"),
        pytest.param({"challenger": "2"}, Split("2", 25), {}, id="without-champion"),
    ],
)
def test_share_is_that_of_the_split_in_force(
    aliases: dict[str, str], tag: Split | None, expected: dict[str, int]
) -> None:
    tags = {str(Tag.TRAFFIC): write_tag(tag)} if tag is not None else {}
    assert shares(RegisteredModel("m", 1, aliases, tags, "")) == expected
