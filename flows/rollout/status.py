"""How far a staged rollout is: one value, stored after each step, from which any later run goes on."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from serving.store.text import JsonValue, read_time, time_text


class Step(StrEnum):
    """`NAME` to `OBSERVE` are walked through, the next three rested in, the last two the ends."""

    NAME = "name"
    SET = "set"
    VERIFY = "verify"
    OBSERVE = "observe"
    HELD = "held"
    PAUSED = "paused"
    APPROVAL = "approval"
    PASSED = "passed"
    ENDING = "ending"

    @property
    def is_resting(self) -> bool:
        """Whether the work stops here until evidence or a person moves it."""
        return self in (Step.HELD, Step.PAUSED, Step.APPROVAL)


class Hold(StrEnum):
    """Why a rollout is held: only evidence that comes later ends the first two by itself."""

    EVIDENCE = "evidence"
    SHIFT = "shift"
    TRAFFIC = "traffic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """`named` tells that alias `challenger` was set, `set_at` when the traffic tag `tag` was written, `since`
    when every worker followed it, `rested_seconds` for how long it has rested while somebody looked.

    Of the present stage: seconds that were watched and that were not. `window_*` are of the last stage,
    which is judged in windows. `passed` holds a record of each finished stage, `metrics` the last judgement.
    """

    step: Step = Step.NAME
    stage: int = 0
    reason: str = ""
    began: datetime | None = None
    set_at: datetime | None = None
    since: datetime | None = None
    looked_at: datetime | None = None
    rested_at: datetime | None = None
    rested_seconds: float = 0.0
    tag: str | None = None
    named: bool = False
    observed_seconds: float = 0.0
    unobserved_seconds: float = 0.0
    window_since: datetime | None = None
    window_seconds: float = 0.0
    failed_windows: int = 0
    patience_seconds: float = 0.0
    hold: Hold | None = None
    approved_by: str | None = None
    heeded: str | None = None
    end: str | None = None
    metrics: tuple[Mapping[str, Any], ...] = ()
    passed: tuple[Mapping[str, Any], ...] = field(default=())

    @property
    def entered(self) -> bool:
        """Whether any traffic was ever asked for."""
        return self.set_at is not None

    @property
    def is_known(self) -> bool:
        """Whether alias challenger was set; before that no traffic of ours can have met the version."""
        return self.named or self.entered

    def as_json(self) -> dict[str, JsonValue]:
        told = asdict(self)
        return {
            name: time_text(value) if isinstance(value, datetime) else value for name, value in told.items()
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any] | None) -> "Status":
        """The status as it was stored; that of the first moment where none was."""
        if told is None:
            return cls()
        known = {each.name for each in fields(cls)}
        values = {name: value for name, value in told.items() if name in known}
        for name in _TIMES:
            values[name] = read_time(values[name]) if values.get(name) else None
        values |= {
            "step": Step(told["step"]),
            "hold": Hold(told["hold"]) if told.get("hold") else None,
            "metrics": tuple(told["metrics"]),
            "passed": tuple(told["passed"]),
        }
        return cls(**values)


_TIMES = ("began", "set_at", "since", "looked_at", "rested_at", "window_since")
