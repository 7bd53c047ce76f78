"""The split: what a tag says, when it counts, and the laws of who gets which version."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.core.traffic import (
    Split,
    Unreadable,
    Why,
    goes_to_challenger,
    read_tag,
    wanted_split,
    write_tag,
)

KEYS = 100_000
QUARTER = Split("7", 25, "r-1")


@pytest.mark.parametrize(
    ("text", "split"),
    [
        pytest.param('{"challenger": "7", "percent": 25, "rollout": "r-1"}', QUARTER, id="as-specified"),
        pytest.param('{"challenger": "7", "percent": 0}', Split("7", 0), id="by-hand"),
        pytest.param('{"challenger": 7, "percent": 100, "rollout": null}', Split("7", 100), id="number"),
        pytest.param('{"challenger": "7", "percent": 25, "rollout": ""}', Split("7", 25), id="no-owner"),
        pytest.param(
            '{"challenger": "7", "percent": 1, "compare_percent": 50}',
            Split("7", 1, None, 50),
            id="compared",
        ),
        pytest.param('{"challenger": "7", "percent": 25, "stage": 2}', Split("7", 25), id="more-fields"),
    ],
)
def test_tag_is_read_when_it_says_what_is_meant(text: str, split: Split) -> None:
    """Also as a person types it."""
    assert read_tag(text) == split


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", "not JSON", id="empty"),
        pytest.param("25", "no object", id="bare-number"),
        pytest.param('{"challenger": "7"', "not JSON", id="cut-off"),
        pytest.param("[" * 7000, "not JSON", id="nested-too-deep"),
        pytest.param('{"percent": 25, "x": "' + "x" * 8000 + '"}', "longer than", id="too-long"),
        pytest.param('{"percent": 25}', "'challenger' must be a version number, not absent", id="nobody"),
        pytest.param('{"challenger": "seven", "percent": 25}', "'challenger'", id="name"),
        pytest.param('{"challenger": "07", "percent": 25}', "'challenger'", id="leading-zero"),
        pytest.param('{"challenger": "", "percent": 25}', "'challenger'", id="empty-version"),
        pytest.param('{"challenger": true, "percent": 25}', "'challenger'", id="boolean-version"),
        pytest.param('{"challenger": -7, "percent": 25}', "'challenger'", id="negative-version"),
        pytest.param('{"challenger": "٧", "percent": 25}', "'challenger'", id="other-digits"),
        pytest.param('{"challenger": "7"}', "'percent' must be a whole number", id="no-percent"),
        pytest.param('{"challenger": "7", "percent": -1}', "'percent'", id="below"),
        pytest.param('{"challenger": "7", "percent": 101}', "'percent'", id="above"),
        pytest.param('{"challenger": "7", "percent": 12.5}', "'percent'", id="half"),
        pytest.param('{"challenger": "7", "percent": "25"}', "'percent'", id="text"),
        pytest.param('{"challenger": "7", "percent": true}', "'percent'", id="boolean"),
        pytest.param('{"challenger": "7", "percent": NaN}', "'percent'", id="nan"),
        pytest.param('{"challenger": "7", "percent": 1, "compare_percent": 200}', "'compare_p", id="copies"),
        pytest.param('{"challenger": "7", "percent": 1, "rollout": 5}', "'rollout'", id="owner"),
    ],
)
def test_tag_is_unreadable_with_a_reason_when_it_says_anything_else(text: str, reason: str) -> None:
    """A value, never an exception."""
    found = read_tag(text)
    assert isinstance(found, Unreadable)
    assert reason in found.reason


def test_tag_is_no_wish_when_it_is_absent() -> None:
    assert read_tag(None) is None


anything = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists)
objects = st.dictionaries(st.sampled_from(["challenger", "percent", "rollout", "compare_percent"]), anything)


@given(st.text() | anything.map(json.dumps) | objects.map(json.dumps))
def test_tag_raises_nothing_whatever_it_holds(text: str) -> None:
    """Anybody may write a tag."""
    assert isinstance(read_tag(text), Split | Unreadable)


splits = st.builds(
    Split,
    st.integers(1, 10**18 - 1).map(str),
    st.integers(0, 100),
    st.none() | st.text(min_size=1, max_size=40),
    st.none() | st.integers(0, 100),
)


@given(splits)
def test_tag_gives_back_the_split_it_was_written_for(split: Split) -> None:
    assert read_tag(write_tag(split)) == split


@pytest.mark.parametrize(
    ("tag", "aliases", "wanted"),
    [
        pytest.param(QUARTER, {"champion": "3", "challenger": "7"}, QUARTER, id="counts"),
        pytest.param(Split("7", 0), {"champion": "3", "challenger": "7"}, Split("7", 0), id="counts-at-0"),
        pytest.param(None, {"champion": "3", "challenger": "7"}, Why.NO_TAG, id="no-tag"),
        pytest.param(Unreadable("x"), {"champion": "3", "challenger": "7"}, Why.UNREADABLE, id="unreadable"),
        pytest.param(QUARTER, {"champion": "3"}, Why.NO_CHALLENGER, id="percent-without-challenger"),
        pytest.param(QUARTER, {"challenger": "7"}, Why.NO_CHAMPION, id="no-champion"),
        pytest.param(QUARTER, {}, Why.NO_CHAMPION, id="nobody"),
        pytest.param(QUARTER, {"champion": "3", "challenger": "8"}, Why.OTHER_CHALLENGER, id="another"),
        pytest.param(QUARTER, {"champion": "7", "challenger": "7"}, Why.SAME_VERSION, id="same"),
    ],
)
def test_tag_counts_only_beside_the_aliases_it_was_written_for(
    tag: Split | Unreadable | None, aliases: dict[str, str], wanted: Split | Why
) -> None:
    """While `challenger` names its version and `champion` another one."""
    assert wanted_split(tag, aliases) == wanted


@pytest.mark.parametrize(("percent", "expected"), [(0, 0), (100, KEYS)])
def test_split_is_exact_at_its_ends_over_many_keys(percent: int, expected: int) -> None:
    """Not one request in 100,000 goes astray."""
    assert sum(goes_to_challenger("m", f"user-{n}", percent) for n in range(KEYS)) == expected


@pytest.mark.parametrize("percent", [1, 5, 25, 50, 99])
def test_split_has_the_share_it_was_asked_for_over_many_keys(percent: int) -> None:
    """Within four standard deviations of a fair draw."""
    share = sum(goes_to_challenger("m", f"user-{n}", percent) for n in range(KEYS)) / KEYS
    deviation = (percent / 100 * (1 - percent / 100) / KEYS) ** 0.5
    assert abs(share - percent / 100) < 4 * deviation


def test_split_is_nested_over_many_keys() -> None:
    """Whoever meets the challenger at one stage still does at the next: nobody goes to and fro."""
    stages = (0, 1, 5, 25, 50, 100)
    for n in range(KEYS // 10):
        met = [goes_to_challenger("m", f"user-{n}", percent) for percent in stages]
        assert met == sorted(met)


@given(st.text(), st.text(), st.integers(0, 100), st.integers(0, 100))
def test_split_is_stable_and_nested_for_any_key(model: str, key: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert goes_to_challenger(model, key, low) is goes_to_challenger(model, key, low)
    assert goes_to_challenger(model, key, high) or not goes_to_challenger(model, key, low)


def test_split_is_another_for_another_model() -> None:
    """The unlucky users of one model are not those of every model."""
    both = [(goes_to_challenger("m", str(n), 50), goes_to_challenger("n", str(n), 50)) for n in range(10_000)]
    assert 0.48 < sum(one == other for one, other in both) / len(both) < 0.52


def test_split_is_the_same_in_every_release() -> None:
    """Replicas of two releases, and a restart with a newer one, must agree: these are pinned."""
    chosen = [n for n in range(40) if goes_to_challenger("digits", str(n), 25)]
    assert chosen == [0, 4, 7, 8, 9, 22, 23, 24, 27, 28, 29, 30, 33, 34, 37]
