"""The callers: what they note of an answer, of an error and of silence."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from flows.cli.demo.records import Record
from flows.cli.demo.reference import Reference
from flows.cli.demo.traffic import Callers

LOGITS = np.arange(20, dtype=np.float32).reshape(2, 10)
REFERENCE = Reference(np.zeros((2, 1, 8, 8), np.float32), {"1": LOGITS})


@dataclass(frozen=True, slots=True)
class CannedAnswer:
    version: str
    outputs: np.ndarray

    def get_response(self) -> dict[str, Any]:
        return {"model_version": self.version, "parameters": {"variant": "champion"}}

    def as_numpy(self, name: str) -> np.ndarray:
        return self.outputs


@dataclass(frozen=True, slots=True)
class CannedClient:
    """Gives every caller the same, however soon the next one asks."""

    given: CannedAnswer | Exception

    async def infer(self, model: str, inputs: list[Any], outputs: list[Any]) -> CannedAnswer:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


def callers_until(
    given: CannedAnswer | Exception, count: int, prepare: Callable[[Callers], None]
) -> list[Record]:
    """The records of the first `count` requests."""
    records: list[Record] = []

    async def call() -> None:
        stop = asyncio.Event()

        def note(record: Record) -> None:
            records.append(record)
            if len(records) == count:
                stop.set()

        callers = Callers(CannedClient(given), "digits", REFERENCE, note)
        prepare(callers)
        await callers.call(1000.0, stop)

    asyncio.run(call())
    return records


def noted(given: CannedAnswer | Exception, count: int = 2) -> list[Record]:
    """The records of the first `count` requests, which ask for the first scan, the second, the first, ..."""
    return callers_until(given, count, lambda callers: None)


def test_answer_matches_its_own_scan_when_versions_answer_in_turn() -> None:
    """The first scan's outputs are right for the first request and wrong for the second."""
    records = noted(CannedAnswer("1", LOGITS[:1]))
    assert [record.matches for record in records] == [True, False]
    assert {(record.version, record.variant, record.status) for record in records} == {("1", "champion", 200)}


def test_answer_is_not_believed_when_its_version_is_unknown() -> None:
    """Right outputs under a wrong name are wrong."""
    assert [record.matches for record in noted(CannedAnswer("4", LOGITS[:1]))] == [False, False]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(InferenceServerException("it raised", status="500"), 500, id="an HTTP error"),
        pytest.param(InferenceServerException("no status"), None, id="an error without a status"),
        pytest.param(ConnectionRefusedError("nobody listens"), None, id="no server"),
        pytest.param(KeyError("variant"), None, id="an answer that is none"),
    ],
)
def test_request_is_unanswered_when_anything_else_comes_back(error: Exception, status: int | None) -> None:
    """With the status the server gave, if it gave one, and the reason; and the callers go on."""
    records = noted(error, count=3)
    assert len(records) >= 3
    assert {(record.is_answered, record.status) for record in records} == {(False, status)}
    assert all(type(error).__name__ in str(record.error) for record in records)


def test_batch_matches_as_a_whole_when_callers_turned_to_it() -> None:
    """Several scans in one request are compared with as many outputs, and counted."""
    other = Reference(np.zeros((4, 1, 8, 8), np.float32), {"1": np.tile(LOGITS, (2, 1))})

    def turn(callers: Callers) -> None:
        callers.turn_to(other, 2)

    records = callers_until(CannedAnswer("1", LOGITS), 3, turn)
    assert all(record.matches and record.rows == 2 for record in records)
    assert not any(record.matches for record in callers_until(CannedAnswer("1", LOGITS[:1]), 2, turn))
