"""How a staged rollout is judged and by which stages it goes: the policy file, and the plan made of it.

`policies.toml` beside this module holds the defaults; a file of the user's is laid over it.
"""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.rollout.slices import Slices, slices_of
from serving.store.text import JsonValue

DEFAULTS = Path(__file__).with_name("policies.toml")
LEAST_DEADLINE_SECONDS = 900.0


_SHADOW = "shadow"

MetricText = Literal["error_rate", "latency", "predictions", "labels"]


class MetricName(StrEnum):
    ERROR_RATE = "error_rate"
    LATENCY = "latency"
    PREDICTIONS = "predictions"
    LABELS = "labels"


class Kind(StrEnum):
    """What a model's answers are; the values of tag `signalbox.model_type`, and tables of the file."""

    CLASSIFIER = "classifier"
    PREDICTOR = "predictor"
    EXTRACTOR = "extractor"
    ROUTER = "router"

    @property
    def has_labels(self) -> bool:
        """Whether answers are compared as labels, not as numbers."""
        return self in (Kind.CLASSIFIER, Kind.ROUTER)


class JudgePolicy(BaseModel):
    """The limits of `policies.toml`, which says what each means."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    required: list[MetricText]
    min_samples: int = Field(ge=1)
    min_pairs: int = Field(ge=1)
    compare_percent: int = Field(ge=0, le=100)
    shadow_percent: int = Field(ge=1, le=100)
    error_alpha: float = Field(gt=0, lt=1)
    error_tau: float = Field(gt=0, lt=1)
    latency_quantile: float = Field(gt=0, lt=1)
    max_latency_ratio: float = Field(ge=1, allow_inf_nan=False)
    max_latency_extra_ms: float = Field(ge=0, allow_inf_nan=False)
    latency_alpha: float = Field(gt=0, lt=1)
    max_disagreement_ratio: float = Field(ge=0, le=1)
    max_median_difference_ratio: float = Field(ge=0, allow_inf_nan=False)
    predictions_alpha: float = Field(gt=0, lt=1)
    min_labels: int = Field(ge=1)
    max_accuracy_drop: float = Field(ge=0, le=1)
    max_slice_drop: float = Field(ge=0, le=1)
    max_error_growth_ratio: float = Field(ge=1, allow_inf_nan=False)
    final_windows: int = Field(ge=1)


@dataclass(frozen=True, slots=True)
class Usual:
    """The plan where nobody says otherwise; `policy_file` is the user's own."""

    stages: str = "5,25,50,100"
    stage_seconds: float = 60.0
    policy_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """What a staged rollout wants, fixed when it was asked for.

    A first stage of 0 percent is the shadow stage: the challenger gets copies, and answers nobody.
    `approve_before` is the percent that a person must allow, None where nobody is asked. `slices` names
    groups of true classes.
    """

    percents: tuple[int, ...]
    stage_seconds: float
    deadline_seconds: float
    kind: Kind | None
    policy: JudgePolicy
    approve_before: int | None = None
    slices: Slices = field(default_factory=dict)

    @property
    def last(self) -> int:
        return len(self.percents) - 1

    def compare_percent(self, stage: int) -> int:
        """The share of answers that are compared in a stage."""
        return self.policy.compare_percent if self.percents[stage] else self.policy.shadow_percent

    def as_json(self) -> dict[str, JsonValue]:
        return {
            "stages": list(self.percents),
            "stage_seconds": self.stage_seconds,
            "stage_deadline_seconds": self.deadline_seconds,
            "model_type": str(self.kind) if self.kind else None,
            "approve_before": self.approve_before,
            "slices": {name: list(classes) for name, classes in self.slices.items()},
            "policy": self.policy.model_dump(),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Spec":
        return cls(
            percents=tuple(told["stages"]),
            stage_seconds=told["stage_seconds"],
            deadline_seconds=told["stage_deadline_seconds"],
            kind=Kind(told["model_type"]) if told["model_type"] else None,
            policy=JudgePolicy.model_validate(told["policy"]),
            approve_before=told["approve_before"],
            slices={name: tuple(classes) for name, classes in told.get("slices", {}).items()},
        )


def read_policy(
    kind: Kind | None, own: Path | None = None, kept: Mapping[str, object] = MappingProxyType({})
) -> JudgePolicy:
    """The policy of a model type, with the limits that are `kept` for the model itself laid over it.

    Raises `ValueError` naming the limit and where it stands.
    """
    limits: dict[str, Any] = {}
    for path in (DEFAULTS, own):
        if path is None:
            continue
        tables = _tables(path)
        for table in ("default", *([kind.value] if kind else [])):
            limits |= tables.get(table, {})
            _check(limits, f"the rollout policy {path}, table {table}")
    limits |= kept
    _check(limits, "the limits kept for this model")
    return JudgePolicy.model_validate(limits)


def plan_of(
    given: Mapping[str, object],
    usual: Usual,
    kind: Kind | None,
    kept: Mapping[str, object] = MappingProxyType({}),
    slices: str | None = None,
) -> Spec:
    """The plan of a rollout: what was given, else the usual; `kept` is as of `read_policy`.

    `slices` is the model's tag. Raises `ValueError` in one sentence.
    """
    wanted = limits({name: given.get(name) for name in PLAN})
    seconds = float(str(wanted.get("stage_seconds", usual.stage_seconds)))
    usual_deadline = max(LEAST_DEADLINE_SECONDS, 10 * seconds)
    deadline = float(str(wanted.get("stage_deadline_seconds", usual_deadline)))
    if not math.isfinite(deadline):
        raise ValueError(f"stage_seconds {seconds:g} is longer than any stage can last")
    if deadline < seconds:
        raise ValueError(f"stage_deadline_seconds {deadline:g} is shorter than stage_seconds {seconds:g}")
    gate = wanted.get("approve_before")
    return Spec(
        percents=percents_of(wanted.get("stages", usual.stages)),
        stage_seconds=seconds,
        deadline_seconds=deadline,
        kind=kind,
        policy=read_policy(kind, usual.policy_file, kept),
        approve_before=int(str(gate)) if gate is not None else None,
        slices=slices_of(slices),
    )


PLAN = ("stages", "stage_seconds", "stage_deadline_seconds", "approve_before")
"""What may be given of a plan."""


def percents_of(stages: object) -> tuple[int, ...]:
    """`5,25,50,100` as whole numbers; the first may be `shadow`, which is 0. Raises `ValueError`."""
    if isinstance(stages, str):
        stages = stages.split(",")
    try:
        percents = tuple(map(_stage, _listed(stages)))
    except ValueError:
        raise ValueError(
            f"stages must be whole percents like 5,25,50,100, the first maybe shadow, not {stages}"
        ) from None
    if not percents or percents[0] < 0 or percents[-1] != 100 or list(percents) != sorted(set(percents)):
        raise ValueError(f"stages must rise to 100, from shadow (0) or more, not {_joined(percents)}")
    return percents


def shown(percent: int) -> str:
    """A stage as people read it."""
    return f"{percent} %" if percent else "0 % (copies only)"


def limits(given: Mapping[str, object]) -> dict[str, JsonValue]:
    """Those settings of the plan that were given, in their own types; events and forms bring text.

    Nothing, blank text and `none` stand for the default. Raises `ValueError`.
    """
    texts = {name: value for name, value in given.items() if not _is_blank(value)}
    found: dict[str, JsonValue] = {}
    if (stages := texts.get("stages")) is not None:
        found["stages"] = list(percents_of(stages))
    for name in ("stage_seconds", "stage_deadline_seconds"):
        if name in texts:
            found[name] = _seconds(name, texts[name])
    if (percent := texts.get("approve_before")) is not None:
        found["approve_before"] = _percent(percent)
    return found


def kind_of(tag: str | None) -> Kind | None:
    """The type that a model's tag names; an unknown one is judged by what its answers look like."""
    return Kind(tag) if tag in set(Kind) else None


def _tables(path: Path) -> Mapping[str, Any]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"the rollout policy {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the rollout policy {path} is no TOML: {error}") from error
    unknown = sorted(tables.keys() - {"default", *Kind})
    if unknown:
        known = ", ".join(("default", *Kind))
        raise ValueError(f"the rollout policy {path} has a part '{unknown[0]}'; use the tables {known}")
    loose = [name for name, table in tables.items() if not isinstance(table, dict)]
    if loose:
        raise ValueError(f"the rollout policy {path}: '{loose[0]}' must be a table, [{loose[0]}]")
    return tables


def _check(limits: Mapping[str, Any], where: str) -> None:
    try:
        JudgePolicy.model_validate(limits)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        about = f"{name}: {said}" if name else said
        raise ValueError(f"{where}: {about}") from None


def _stage(value: object) -> int:
    text = str(value).strip().lower()
    return 0 if text == _SHADOW else int(text.removesuffix("%"))


def _joined(percents: Sequence[int]) -> str:
    return ",".join(map(str, percents))


def _listed(stages: object) -> Sequence[object]:
    return stages if isinstance(stages, list | tuple) else [stages]


def _seconds(name: str, value: object) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        raise ValueError(f"{name} must be a number, not '{value}'") from None
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"{name} must be more than 0, not {seconds:g}")
    return seconds


def _percent(value: object) -> int:
    text = str(value).strip()
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise ValueError(f"approve_before must be a percent from 1 to 100, not {value}")
    return int(text)


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in ("", "none"))
