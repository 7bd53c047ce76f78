"""Slack messages: every kind readable, every limit kept whatever the facts hold."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block

from flows.alerts.blocks import message
from flows.alerts.notify import Dispatch
from flows.alerts.wording import CUT, units
from flows.cli.demo.block_limits import problems
from serving.store.outbox import Notice, Severity
from serving.store.text import JsonValue
from tests.flows.alerts.notices import FACTS, NOW, make_dispatch, make_notice


def texts(blocks: list[dict[str, Any]]) -> list[str]:
    parts = [part for block in blocks for part in _parts(block)]
    return [part["text"] for part in parts]


def _parts(block: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        *([block["text"]] if "text" in block else []),
        *block.get("fields", []),
        *block.get("elements", []),
    ]


def with_facts(**facts: JsonValue) -> Dispatch:
    return Dispatch(7, replace(make_notice(), facts=facts), NOW)


@pytest.mark.parametrize(
    ("kind", "header", "parts"),
    [
        ("promoted", ":white_check_mark: Promoted: digits 4", ["*To version*\n2", "*Accuracy*\n0.97125"]),
        ("refused", ":no_entry: Refused: digits 4", ["*Reasons*\naccuracy 0.61 is"]),
        (
            "version_refused",
            ":no_entry: Refused: digits 4",
            ["*Answering*\nnone", "*Reason*\nit is a pickle"],
        ),
        ("rolled_back", ":rewind: Rolled back: digits 4", ["*From version*\n4", "*Reason*\n5 failed"]),
        ("out_of_band", ":point_right: Moved by hand: digits 4", ["*From version*\n1", "*To version*\n3"]),
        ("drifted", ":ocean: Drift: digits 4", ["*Share*\n0.5", "Column: pixels.3, P: 1e-09", "Column: b"]),
        ("champion_failing", ":rotating_light: Champion failing: digits 4", ["*Evidence*\n7 of 10"]),
        ("champion_orphaned", ":warning: Champion alias missing: digits 4", ["*Minutes left*\n10"]),
        ("something_new", ":information_source: Something new: digits 4", ["*Flag*\nyes", "A: 1, B: none"]),
    ],
)
def test_message_shows_the_facts_when_of_any_kind(kind: str, header: str, parts: list[str]) -> None:
    """Known kinds have a form of their own, others a general one."""
    made = message(make_dispatch(kind))
    assert made.blocks[0]["text"]["text"] == header
    assert made.blocks[1]["text"]["text"] == f"digits: {kind} happened"
    said = texts(made.blocks)
    assert [part for part in parts if not any(part in text for text in said)] == []
    assert problems(made.blocks) == []
    for block in made.blocks:
        parsed = Block.parse(block)
        assert parsed is not None
        parsed.validate_json()


def test_message_says_so_when_it_may_repeat_another() -> None:
    """In the blocks and in the text that stands in for them."""
    made = message(make_dispatch(maybe_duplicate=True))
    assert "maybe a duplicate" in made.text
    assert "maybe a duplicate" in texts(made.blocks)[-1]
    assert "duplicate" not in json.dumps(message(make_dispatch()).blocks)


def test_message_names_severity_time_and_notice_when_made() -> None:
    """Times carry their offset."""
    assert texts(message(make_dispatch()).blocks)[-1] == (
        "Signalbox · critical · 2026-01-01T00:00:00+00:00 · notice 7"
    )


def test_message_calls_nobody_when_facts_hold_markup() -> None:
    """A model's name or an error text cannot mention a channel or make a link."""
    notice = replace(make_notice(), title="<!channel> & <https://evil|here>", facts={"reason": "<@U1>"})
    made = message(Dispatch(7, notice, NOW))
    said = [made.text, *texts(made.blocks)[1:]]
    assert [text for text in said if "<" in text] == []
    assert "&lt;!channel&gt; &amp; &lt;https://evil|here&gt;" in said[1]


@pytest.mark.parametrize(
    ("length", "is_cut"), [pytest.param(2991, False, id="fits"), pytest.param(2992, True, id="one too long")]
)
def test_section_is_cut_visibly_when_too_long(length: int, is_cut: bool) -> None:
    """`*Reason*` and the line break take nine of the 3000."""
    made = message(with_facts(reason="x" * length))
    [text] = [text for text in texts(made.blocks) if text.startswith("*Reason*")]
    assert units(text) == 3000
    assert text.endswith(CUT) is is_cut


def test_cut_splits_no_entity_when_escaped_text_is_long() -> None:
    """Half of `&amp;` would be shown as it is."""
    made = message(with_facts(reason="&" * 3000))
    [text] = [text for text in texts(made.blocks) if text.startswith("*Reason*")]
    assert text.removeprefix("*Reason*\n").removesuffix(CUT).replace("&amp;", "") == ""


def test_message_counts_what_it_leaves_out_when_facts_are_many() -> None:
    """Nothing vanishes silently."""
    made = message(with_facts(**{f"fact_{number}": "long " * 200 for number in range(60)}))
    shown = sum(text.startswith("*Fact") for text in texts(made.blocks))
    assert 0 < shown < 60
    assert f"{60 - shown} more facts did not fit; see `signalbox alerts --json`" in texts(made.blocks)
    assert problems(made.blocks) == []


def test_fields_go_by_tens_when_facts_are_short() -> None:
    """A section holds ten fields."""
    made = message(with_facts(**{f"fact_{number}": number for number in range(23)}))
    assert [len(block["fields"]) for block in made.blocks if "fields" in block] == [10, 10, 3]


ANY_TEXT = st.text(st.characters(codec=None), max_size=200) | st.integers(0, 4000).map("𝔸&".__mul__)
ANY_FACT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(ANY_TEXT, inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([*FACTS, "", "\x00"]),
    title=ANY_TEXT,
    model=st.none() | ANY_TEXT,
    facts=st.dictionaries(ANY_TEXT, ANY_FACT, max_size=40),
)
def test_limits_hold_when_facts_are_arbitrary(
    kind: str, title: str, model: str | None, facts: dict[str, JsonValue]
) -> None:
    """Slack takes every message we can make."""
    notice = Notice(kind=kind, severity=Severity.INFO, title=title, model=model, facts=facts, dedup_key="key")
    made = message(Dispatch(1, notice, datetime(2026, 1, 1, tzinfo=UTC), True))
    assert problems(made.blocks) == []
    assert 0 < units(made.text) <= 3000
    json.dumps(made.blocks, ensure_ascii=False).encode()
