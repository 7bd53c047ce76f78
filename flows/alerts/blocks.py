"""A notice as a Slack message: Block Kit blocks, and the text that stands in where blocks are not shown.

Pure; used by the Slack notifiers. Every message keeps Slack's limits whatever its facts hold: 50
blocks, 150 units of header, 3000 per section, 10 fields of 2000, and a total that Slack still takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, TypeAlias

from flows.alerts import wording
from flows.alerts.notify import Dispatch
from serving.store.outbox import Notice

Block: TypeAlias = dict[str, Any]

HEADER_UNITS = 150
SECTION_UNITS = 3000
FIELD_UNITS = 2000
FIELDS = 10
BLOCKS = 50
# Not in Slack's reference: it answers msg_blocks_too_long somewhat above 13,000.
TOTAL_UNITS = 12_000
TEXT_UNITS = 3000

_LABEL_UNITS = 150
# Longer values are hard to read in Slack's two narrow columns.
_FIELD_VALUE_UNITS = 80
_PROSE = frozenset({"reason", "reasons", "problem", "evidence", "message", "errors", "warnings", "columns"})


@dataclass(frozen=True, slots=True)
class Message:
    """`text` is what notifications and screen readers show."""

    text: str
    blocks: list[Block]


def message(dispatch: Dispatch) -> Message:
    """The whole message; when facts had to be left out, a line in it says how many."""
    notice = dispatch.notice
    head = [_header(notice), _section(wording.title(notice))]
    facts = list(_facts(notice))
    foot = _context(_footer(dispatch))
    kept = _fitting(facts, used=sum(map(_units, [*head, foot])), places=BLOCKS - len(head) - 2)
    left_out = sum(map(_fact_count, facts[len(kept) :]))
    more = [_context(f"{left_out} more facts did not fit; see `signalbox alerts --json`")] if left_out else []
    return Message(_text(dispatch), [*head, *kept, *more, foot])


def _header(notice: Notice) -> Block:
    form = wording.form_of(notice.kind)
    about = " ".join(wording.plain(part) for part in (notice.model, notice.version) if part)
    line = f"{form.emoji} {form.name}: {about}" if about else f"{form.emoji} {form.name}"
    text = wording.cut(" ".join(line.split()), HEADER_UNITS)
    return {"type": "header", "text": {"type": "plain_text", "text": text, "emoji": True}}


def _facts(notice: Notice) -> Iterator[Block]:
    """Short facts side by side, then each long one in a section of its own."""
    said = [(name, wording.shown(value)) for name, value in wording.ordered(notice)]
    short = [fact for fact in said if not _is_long(*fact)]
    for at in range(0, len(short), FIELDS):
        yield {"type": "section", "fields": [_mrkdwn(*fact, FIELD_UNITS) for fact in short[at : at + FIELDS]]}
    for fact in said:
        if _is_long(*fact):
            yield {"type": "section", "text": _mrkdwn(*fact, SECTION_UNITS)}


def _is_long(name: str, value: str) -> bool:
    return name in _PROSE or "\n" in value or wording.units(value) > _FIELD_VALUE_UNITS


def _mrkdwn(name: str, value: str, limit: int) -> Block:
    head = f"*{wording.escaped(wording.label(name) or '-', _LABEL_UNITS)}*\n"
    return {"type": "mrkdwn", "text": head + wording.escaped(value, limit - wording.units(head))}


def _section(text: str) -> Block:
    return {"type": "section", "text": {"type": "mrkdwn", "text": wording.escaped(text, SECTION_UNITS)}}


def _context(text: str) -> Block:
    return {
        "type": "context",
        "elements": [{"type": "mrkdwn", "text": wording.escaped(text, FIELD_UNITS)}],
    }


def _footer(dispatch: Dispatch) -> str:
    made_at = dispatch.created_at.isoformat(timespec="seconds")
    line = f"Signalbox · {dispatch.notice.severity} · {made_at} · notice {dispatch.id}"
    doubt = " · maybe a duplicate: whether an earlier attempt arrived is unknown"
    return line + doubt if dispatch.maybe_duplicate else line


def _text(dispatch: Dispatch) -> str:
    notice = dispatch.notice
    doubt = " (maybe a duplicate)" if dispatch.maybe_duplicate else ""
    line = f"{wording.form_of(notice.kind).emoji} {wording.title(notice)}{doubt}"
    return wording.escaped(line, TEXT_UNITS)


def _fitting(blocks: list[Block], used: int, places: int) -> list[Block]:
    """As many of the blocks, from the first, as there is room for."""
    room = TOTAL_UNITS - used

    def fits(block: Block) -> bool:
        nonlocal room
        room -= _units(block)
        return room >= 0

    return list(takewhile(fits, blocks[:places]))


def _units(block: Block) -> int:
    texts = [block.get("text"), *block.get("fields", ()), *block.get("elements", ())]
    return sum(wording.units(text["text"]) for text in texts if text)


def _fact_count(block: Block) -> int:
    return len(block.get("fields", ())) or 1
