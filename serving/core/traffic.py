"""The split of a model's traffic between champion and challenger: what the tag says, when it counts, whose
request is whose.

Pure. The tag is the wanted state, one write that sets the split; it counts only while alias `challenger`
names its version and `champion` names another one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from serving.core.model import Alias

ALL_PERCENT = 100
_HASH_BYTES = 8
_MAX_TAG_CHARACTERS = 8000  # MLflow keeps no longer value


@dataclass(frozen=True, slots=True)
class Split:
    """The share of requests that `challenger` answers; the other part is the champion's.

    `rollout` owns the split where there is one. `compare_percent` is the share of answers that the other
    version gets a copy of, None where the server's own setting holds.
    """

    challenger: str
    percent: int
    rollout: str | None = None
    compare_percent: int | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A tag that cannot be followed, and why."""

    reason: str


class Why(StrEnum):
    """Why a model's traffic is not split."""

    NO_TAG = "no traffic tag is set"
    UNREADABLE = "the traffic tag cannot be read"
    NO_CHAMPION = "alias champion names no version"
    NO_CHALLENGER = "alias challenger names no version"
    OTHER_CHALLENGER = "the traffic tag names another version than alias challenger"
    SAME_VERSION = "champion and challenger are the same version"


def read_tag(text: str | None) -> Split | Unreadable | None:
    """What a traffic tag says; None where none is set. Fields it does not know are ignored."""
    if text is None:
        return None
    if len(text) > _MAX_TAG_CHARACTERS:
        return Unreadable(f"it is longer than {_MAX_TAG_CHARACTERS} characters")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Unreadable(f"it is not JSON: {error}")
    if not isinstance(said, dict):
        return Unreadable('it is no object like {"challenger": "7", "percent": 25}')
    return _split(said)


def write_tag(split: Split) -> str:
    """The tag's text for a split; `read_tag` gives the split back."""
    said: dict[str, object] = {
        "challenger": split.challenger,
        "percent": split.percent,
        "rollout": split.rollout,
    }
    if split.compare_percent is not None:
        said["compare_percent"] = split.compare_percent
    return json.dumps(said)


def wanted_split(tag: Split | Unreadable | None, aliases: Mapping[str, str]) -> Split | Why:
    """The split that a tag and the aliases beside it ask for, or why there is none."""
    if tag is None:
        return Why.NO_TAG
    if isinstance(tag, Unreadable):
        return Why.UNREADABLE
    champion, challenger = aliases.get(Alias.CHAMPION), aliases.get(Alias.CHALLENGER)
    if champion is None:
        return Why.NO_CHAMPION
    if challenger is None:
        return Why.NO_CHALLENGER
    if challenger != tag.challenger:
        return Why.OTHER_CHALLENGER
    return Why.SAME_VERSION if champion == challenger else tag


def goes_to_challenger(model: str, key: str, percent: int) -> bool:
    """Whether the request with this route key is the challenger's.

    The same for one key everywhere and always; whoever is the challenger's at one percent still is at a
    higher one. Exact at 0 and 100.
    """
    if percent <= 0:
        return False
    if percent >= ALL_PERCENT:
        return True
    return _place(model, key) * ALL_PERCENT < percent << (8 * _HASH_BYTES)


def _place(model: str, key: str) -> int:
    """Where a key stands among all keys: even over the numbers of 64 bits, and other for another model."""
    named = f"{len(model)}:{model}{key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(named, digest_size=_HASH_BYTES).digest(), "big")


def _split(said: Mapping[str, object]) -> Split | Unreadable:
    challenger, rollout = said.get("challenger"), said.get("rollout")
    if type(challenger) is int:
        challenger = str(challenger)
    if not isinstance(challenger, str) or not is_version(challenger):
        return Unreadable(f"'challenger' must be a version number, not {_shown(said, 'challenger')}")
    percent, compare = said.get("percent"), said.get("compare_percent")
    if not is_percent(percent):
        return Unreadable(f"'percent' must be a whole number from 0 to 100, not {_shown(said, 'percent')}")
    if compare is not None and not is_percent(compare):
        return Unreadable(
            f"'compare_percent' must be a whole number from 0 to 100, not {_shown(said, 'compare_percent')}"
        )
    if rollout is not None and not isinstance(rollout, str):
        return Unreadable(f"'rollout' must be a text, not {_shown(said, 'rollout')}")
    assert isinstance(percent, int)
    return Split(challenger, percent, rollout or None, compare if isinstance(compare, int) else None)


def is_version(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19 and text[0] != "0"


def is_percent(value: object) -> bool:
    return type(value) is int and 0 <= value <= ALL_PERCENT


def _shown(said: Mapping[str, object], name: str) -> str:
    return json.dumps(said[name])[:60] if name in said else "absent"
