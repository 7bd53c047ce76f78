"""What one phase of open-loop load shows: who failed, who answered wrongly or late, in numpy columns."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.pace import Heard
from serving.core.datatypes import Array
from tests.traffic import Move

_OK = 200


@dataclass(frozen=True)
class Phase:
    """Requests of `x` to a model whose versions add `constants`, with the moves of its alias meanwhile.

    Of the latencies those of the first `settling_seconds` do not count; of failures all do.
    """

    heard: Heard
    moves: Sequence[Move]
    constants: Mapping[str, float]
    x: float
    settling_seconds: float

    @property
    def count(self) -> int:
        return len(self.heard.due)

    @property
    def failed(self) -> int:
        return int(np.count_nonzero(self.heard.status != _OK))

    @property
    def wrong(self) -> int:
        """Answers whose value is not what the version they name computes."""
        is_wrong = np.array([not self._is_right(body) for body in self.heard.bodies])
        return int(np.count_nonzero((self.heard.status == _OK) & is_wrong[self.heard.said]))

    @property
    def p99_ms(self) -> float:
        """Of all answers after the first moments, which in a phase of moves are all close to one."""
        counts = (self.heard.status == _OK) & (self.heard.due >= self.heard.due[0] + self.settling_seconds)
        return float(np.percentile(self.heard.ms[counts], 99))

    def first_answer_seconds(self) -> list[float]:
        """Per move, from before its write to the end of its version's first answer; infinite without one."""
        return [self._first_answer(move, window) - move.began for move, window in self._windows()]

    def old_after_new(self) -> int:
        """Answers of another version to requests due after the new version's first answer."""
        found = 0
        for move, window in self._windows():
            late = window & (self.heard.due > self._first_answer(move, window)) & (self.heard.status == _OK)
            found += int(np.count_nonzero(late & (self._versions != move.version)))
        return found

    @cached_property
    def _versions(self) -> Array:
        named = np.array([str(_told(body).get("model_version", "")) for body in self.heard.bodies])
        versions: Array = named[self.heard.said]
        return versions

    def _windows(self) -> list[tuple[Move, Array]]:
        ends = [*(move.began for move in self.moves[1:]), float("inf")]
        return [
            (move, (self.heard.due >= move.began) & (self.heard.due < end))
            for move, end in zip(self.moves, ends, strict=False)
        ]

    def _first_answer(self, move: Move, window: Array) -> float:
        new = self.heard.ended[window & (self._versions == move.version)]
        return float(new.min()) if len(new) else float("inf")

    def _is_right(self, body: bytes) -> bool:
        told = _told(body)
        if "outputs" not in told:
            return False
        added = round(told["outputs"][0]["data"][0] - self.x, 3)
        return bool(added == self.constants.get(told["model_version"]))


def _told(body: bytes) -> dict[str, Any]:
    try:
        told: object = json.loads(body)
    except ValueError:
        told = None
    return told if isinstance(told, dict) else {}
