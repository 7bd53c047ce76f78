"""Slices of a model's inputs that must not get worse, however good the whole becomes: what the tag declares.

Tag `signalbox.slices` of a registered model holds JSON: `["7", "9"]` makes a slice of each class, an
object like `{"rare": ["7", "9"]}` names groups of them. An input is in a slice by its true class.
"""

import json
from collections.abc import Mapping

MAX_SLICES = 64

Slices = Mapping[str, tuple[str, ...]]


def slices_of(tag: str | None) -> Slices:
    """The declared slices by name; none without a tag. Raises `ValueError` for a tag that says nothing."""
    if tag is None or not tag.strip():
        return {}
    try:
        said = json.loads(tag)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"tag signalbox.slices is not JSON: {error}") from None
    if isinstance(said, list):
        said = {str(each): [each] for each in said}
    if not isinstance(said, dict):
        raise ValueError('tag signalbox.slices must be a list like ["7", "9"] or an object of such lists')
    if len(said) > MAX_SLICES:
        raise ValueError(f"tag signalbox.slices declares {len(said)} slices, at most {MAX_SLICES} may be")
    return {name: _classes(name, classes) for name, classes in said.items()}


def _classes(name: str, classes: object) -> tuple[str, ...]:
    if not isinstance(classes, list) or not classes or not all(_is_class(each) for each in classes):
        raise ValueError(
            f"slice '{name}' of tag signalbox.slices must list classes, as text or whole numbers"
        )
    return tuple(str(each) for each in classes)


def _is_class(value: object) -> bool:
    return isinstance(value, str) or type(value) is int
