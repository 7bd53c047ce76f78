"""How facts read in a message: what each kind of notice is called, labels, values, cuts.

Pure; used by the Block Kit payloads. Lengths are counted as Slack's own code counts them, in UTF-16
units, and a text that had to be cut says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.store.outbox import Notice
from serving.store.text import JsonValue

CUT = " … (shortened)"
_INLINE_UNITS = 60
_ESCAPES: Mapping[str, str] = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


@dataclass(frozen=True, slots=True)
class Form:
    """What a kind of notice is called, and which of its facts come first."""

    emoji: str
    name: str
    first: tuple[str, ...] = ()


_ROUTE = ("from", "to", "strategy", "actor", "requested_by")
_REFUSED = Form(":no_entry:", "Refused", ("alias", "answering", *_ROUTE))
_FORMS: Mapping[str, Form] = {
    "promoted": Form(":white_check_mark:", "Promoted", _ROUTE),
    "refused": _REFUSED,
    "version_refused": _REFUSED,
    "model_file_refused": Form(":no_entry:", "Model file refused", ("path", "reason")),
    "rolled_back": Form(":rewind:", "Rolled back", _ROUTE),
    "out_of_band": Form(":point_right:", "Moved by hand", _ROUTE),
    "drifted": Form(":ocean:", "Drift", ("share", "drifted")),
    "challenger_ejected": Form(":no_entry:", "Challenger ejected", ("champion", "evidence", "rollout")),
    "traffic_unreadable": Form(":warning:", "Traffic tag unreadable"),
    "champion_failing": Form(":rotating_light:", "Champion failing"),
    "champion_orphaned": Form(":warning:", "Champion alias missing", ("minutes",)),
    "health_critical": Form(":rotating_light:", "Health critical", ("level",)),
    "log_dropping": Form(":warning:", "Inference log incomplete"),
    "data_shifted": Form(":ocean:", "Data shifted", ("reason", "percent", "next_step")),
    "rollout_held": Form(":double_vertical_bar:", "Rollout held", ("reason", "percent", "next_step")),
    "rollout_paused": Form(":double_vertical_bar:", "Rollout paused", ("reason", "percent", "next_step")),
    "rollout_approval": Form(":raised_hand:", "Approval wanted", ("reason", "percent", "next_step")),
    "superseded": Form(":information_source:", "Promotion superseded", _ROUTE),
    "failed": Form(":x:", "Promotion failed", _ROUTE),
    "test": Form(":bell:", "Test message"),
}
_LABELS = {
    "from": "From version",
    "to": "To version",
    "alias": "Asked for as",
    "answering": "Answering",
    "minutes": "Minutes left",
    "p95_ms": "p95 (ms)",
}


def form_of(kind: str) -> Form:
    """The form of a known kind, or one made from the kind's name."""
    return _FORMS.get(kind) or Form(":information_source:", label(kind) or "Notice")


def title(notice: Notice) -> str:
    return plain(notice.title).strip() or form_of(notice.kind).name


def label(name: str) -> str:
    return _LABELS.get(name) or plain(name).replace("_", " ").strip().capitalize()


def ordered(notice: Notice) -> list[tuple[str, JsonValue]]:
    """The facts, those first that the kind puts first."""
    first = form_of(notice.kind).first
    names = [name for name in first if name in notice.facts]
    names += [name for name in notice.facts if name not in first]
    return [(name, notice.facts[name]) for name in names]


def shown(value: JsonValue) -> str:
    """A value for people: lists as bullets when they are long, numbers without needless digits."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str | int):
        return plain(str(value)).strip() or "none"
    items = _items(value)
    if not items:
        return "none"
    inline = ", ".join(items)
    simple = len(inline) <= _INLINE_UNITS and "\n" not in inline and not any(map(_is_nested, value))
    return inline if simple else "\n".join(f"• {item}" for item in items)


def plain(text: str) -> str:
    """Text that JSON and Slack take: no control characters, no broken surrogates."""
    whole = text.encode("utf-8", "replace").decode()
    return whole if whole.isprintable() else "".join(map(_printable, whole))


def escaped(text: str, limit: int) -> str:
    """Slack's markup in which nothing acts as a mention or a link, at most `limit` long."""
    # No letter gets shorter, so what lies beyond the limit needs no look.
    return _cut([_ESCAPES.get(letter, letter) for letter in text[: limit + 1]], limit)


def cut(text: str, limit: int) -> str:
    """Plain text of at most `limit`."""
    return _cut(text[: limit + 1], limit)


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _items(value: Sequence[JsonValue] | Mapping[str, JsonValue]) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{label(name)}: {_inline(item)}" for name, item in value.items()]
    return [_inline(item) for item in value]


def _inline(value: JsonValue) -> str:
    """Nested values on one line."""
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str):
        return ", ".join(_items(value)) or "none"
    return shown(value)


def _is_nested(item: JsonValue) -> bool:
    return isinstance(item, Mapping | Sequence) and not isinstance(item, str)


def _cut(pieces: Sequence[str], limit: int) -> str:
    whole = "".join(pieces)
    if units(whole) <= limit:
        return whole
    kept, room = [], limit - units(CUT)
    for piece in pieces:
        room -= units(piece)
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept) + CUT


def _printable(letter: str) -> str:
    if letter.isprintable() or letter in "\n\t":
        return letter
    return " " if letter.isspace() else ""
