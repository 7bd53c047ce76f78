"""A label that came back for an answer, and what it says of that answer: right, wrong, or how far off.

Pure. Called by the joiner for every label whose answer it found.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from serving.core.scored import Scored
from serving.core.sketch import Sketch

LabelValue: TypeAlias = "bool | int | float | str | Sequence[float]"
# One output's elements of one row, as the inference log holds them.
Elements: TypeAlias = "Sequence[bool | int | float | str | None]"

MAX_ELEMENTS = 256
_LIKELY = 0.5


class Task(StrEnum):
    """What a model does for its users; values of tag `signalbox.model_type`."""

    CLASSIFIER = "classifier"
    PREDICTOR = "predictor"
    EXTRACTOR = "extractor"
    ROUTER = "router"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The truth about one row of one answered request. `model` narrows where the answer is looked for."""

    request_id: str
    row: int
    label: LabelValue
    at: datetime
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a label said of an answer: `said` is the answer's class or number."""

    said: str
    scored: Scored


@dataclass(frozen=True, slots=True)
class Unscorable:
    """Why a label says nothing of an answer."""

    reason: str


def judge(
    label: LabelValue,
    outputs: Mapping[str, Elements],
    *,
    task: str | None,
    classes: Sequence[str] = (),
    delay_seconds: float,
) -> Verdict | Unscorable:
    """Hold a label against the outputs of its row.

    Without a declared `task`, a single float is a prediction and all else a classification. Of several
    outputs, one that says the class itself wins over scores. `classes` name the scores in their order.
    """
    if not outputs:
        return Unscorable("the log holds no output of this row")
    if task == Task.EXTRACTOR:
        return Unscorable("an embedding is neither right nor wrong")
    first = next(iter(outputs.values()))
    if task == Task.PREDICTOR or (task is None and len(first) == 1 and isinstance(first[0], float)):
        return _measured(label, first, delay_seconds)
    return _classified(label, outputs, classes, delay_seconds)


def class_name(label: LabelValue) -> str | None:
    """The class a label names, the same for 3, 3.0 and "3"; None for what is no class."""
    if isinstance(label, bool):
        return str(int(label))
    if isinstance(label, float):
        return str(int(label)) if label.is_integer() else None
    return str(label) if isinstance(label, int | str) else None


def _measured(label: LabelValue, said: Elements, delay_seconds: float) -> Verdict | Unscorable:
    truth = _numbers([label] if isinstance(label, bool | int | float | str) else label)
    numbers = _numbers(said)
    if truth is None:
        return Unscorable("the label of a prediction must be a finite number, or a list of them")
    if numbers is None:
        return Unscorable("the answer is not finite")
    if len(truth) != len(numbers):
        return Unscorable(f"the answer has {len(numbers)} numbers, the label {len(truth)}")
    errors = [given - true for given, true in zip(numbers, truth, strict=True)]
    absolute = sum(map(abs, errors)) / len(errors)
    squared = sum(error * error for error in errors) / len(errors)
    shown = f"{numbers[0]:.9g}" if len(numbers) == 1 else f"{len(numbers)} numbers"
    scored = Scored(measured=1, absolute=absolute, squared=squared, delays=_delay(delay_seconds))
    return Verdict(shown, scored)


def _classified(
    label: LabelValue, outputs: Mapping[str, Elements], classes: Sequence[str], delay_seconds: float
) -> Verdict | Unscorable:
    truth = class_name(label)
    if truth is None:
        return Unscorable("the label of a classification must be a class: text or a whole number")
    said = _class_said(outputs)
    if said is None:
        return Unscorable("no output says a class or one finite score per class")
    if said.is_index and isinstance(label, str) and truth != said.name:
        index = int(said.name)
        if index >= len(classes):
            if not truth.isdigit():
                return Unscorable("the label is text and nothing names the scores: register class labels")
        elif not truth.isdigit() or truth in classes:
            said = _Said(classes[index], is_index=False)
    right = truth == said.name
    pairs = {(truth[:64], said.name[:64]): 1}
    return Verdict(said.name, Scored(1, int(right), pairs, delays=_delay(delay_seconds)))


@dataclass(frozen=True, slots=True)
class _Said:
    name: str
    is_index: bool


def _class_said(outputs: Mapping[str, Elements]) -> _Said | None:
    for elements in outputs.values():
        if len(elements) == 1 and isinstance(elements[0], bool | int | str):
            return _Said(class_name(elements[0]) or "", is_index=False)
    for elements in outputs.values():
        scores = _numbers(elements)
        if scores is None:
            continue
        index = int(scores[0] >= _LIKELY) if len(scores) == 1 else scores.index(max(scores))
        return _Said(str(index), is_index=True)
    return None


def _numbers(values: Sequence[object]) -> list[float] | None:
    """As finite numbers, or None where one is none."""
    found = [float(value) for value in values if isinstance(value, bool | int | float)]
    return found if len(found) == len(values) and found and all(map(math.isfinite, found)) else None


def _delay(seconds: float) -> Sketch:
    delays = Sketch()
    delays.add(max(0.0, seconds))
    return delays
