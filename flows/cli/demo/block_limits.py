"""What is wrong with Block Kit blocks by Slack's reference; strict, and apart from the code that makes them.

Called by the Slack receiver. Knows the blocks that our messages use and refuses every other.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

_BLOCKS = 50
_TOTAL_UNITS = 13_000
_BLOCK_ID_UNITS = 255
_HEADER_UNITS = 150
_SECTION_UNITS = 3000
_FIELDS, _FIELD_UNITS = 10, 2000
_ELEMENTS, _ELEMENT_UNITS = 10, 3000

_TEXT_KEYS: Mapping[str, frozenset[str]] = {
    "plain_text": frozenset({"type", "text", "emoji"}),
    "mrkdwn": frozenset({"type", "text", "verbatim"}),
}


def problems(blocks: object) -> list[str]:
    """One sentence per offence; empty for blocks that Slack takes."""
    if not isinstance(blocks, list) or not blocks:
        return ["blocks must be a list that is not empty"]
    found = [f"{len(blocks)} blocks, at most {_BLOCKS}"] if len(blocks) > _BLOCKS else []
    for at, block in enumerate(blocks):
        found += [f"block {at}: {problem}" for problem in _block(block)]
    if not found and (total := sum(map(_total, blocks))) > _TOTAL_UNITS:
        found.append(f"{total} units of text in all, at most {_TOTAL_UNITS}")
    return found


def _block(block: object) -> Iterator[str]:
    if not isinstance(block, dict):
        yield "must be an object"
        return
    check = _CHECKS.get(str(block.get("type")))
    if check is None:
        yield f"unknown type {block.get('type')!r}"
        return
    block_id = block.get("block_id", "x")
    if not isinstance(block_id, str) or not 0 < _units(block_id) <= _BLOCK_ID_UNITS:
        yield "block_id must be a text of 1 to 255"
    yield from check({key: value for key, value in block.items() if key not in ("type", "block_id")})


def _header(block: Mapping[str, Any]) -> Iterator[str]:
    yield from _keys(block, "text")
    yield from _text(block.get("text"), _HEADER_UNITS, only="plain_text")


def _section(block: Mapping[str, Any]) -> Iterator[str]:
    yield from _keys(block, "text", "fields", "expand")
    if "text" not in block and "fields" not in block:
        yield "a section needs text or fields"
    if "text" in block:
        yield from _text(block["text"], _SECTION_UNITS)
    if "fields" in block:
        yield from _texts("fields", block["fields"], _FIELDS, _FIELD_UNITS)


def _context(block: Mapping[str, Any]) -> Iterator[str]:
    yield from _keys(block, "elements")
    yield from _texts("elements", block.get("elements"), _ELEMENTS, _ELEMENT_UNITS)


def _divider(block: Mapping[str, Any]) -> Iterator[str]:
    yield from _keys(block)


_CHECKS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "header": _header,
    "section": _section,
    "context": _context,
    "divider": _divider,
}


def _keys(block: Mapping[str, Any], *known: str) -> Iterator[str]:
    yield from (f"unknown key {key!r}" for key in block if key not in known)


def _texts(name: str, texts: object, count: int, limit: int) -> Iterator[str]:
    if not isinstance(texts, list) or not 0 < len(texts) <= count:
        yield f"{name} must be a list of 1 to {count}"
        return
    for text in texts:
        yield from _text(text, limit)


def _text(text: object, limit: int, only: str | None = None) -> Iterator[str]:
    if not isinstance(text, dict) or text.get("type") not in _TEXT_KEYS:
        yield "a text must be a plain_text or mrkdwn object"
        return
    if only is not None and text["type"] != only:
        yield f"this text must be {only}"
    yield from (f"unknown key {key!r}" for key in text if key not in _TEXT_KEYS[text["type"]])
    said = text.get("text")
    if not isinstance(said, str) or not 0 < _units(said) <= limit:
        length = _units(said) if isinstance(said, str) else "none"
        yield f"the text must have 1 to {limit} units, it has {length}"


def _total(block: Mapping[str, Any]) -> int:
    texts = [block.get("text"), *block.get("fields", ()), *block.get("elements", ())]
    return sum(_units(text["text"]) for text in texts if text)


def _units(text: str) -> int:
    """Length as JavaScript counts it; a lone surrogate counts too, Slack refuses it elsewhere."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
