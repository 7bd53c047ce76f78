"""One request of the soak: which it is, what must come of it, and what did."""

import json
import random
import struct
from dataclasses import dataclass
from time import monotonic

import httpx

from tests.mlflow_registry import RegisteredModel

MALFORMED_RATIO = 0.01
_BINARY_RATIO = 0.5
_BAD = (
    b"{",
    b'{"inputs": []}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 9], "data": [1]}]}',
)
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Sample:
    """One request; moments in seconds since the soak began. `trouble` says what came instead of what must."""

    is_valid: bool
    started: float
    ended: float
    trouble: str | None = None
    is_wrong: bool = False

    @property
    def ms(self) -> float:
        return (self.ended - self.started) * 1000


async def ask(
    client: httpx.AsyncClient, model: RegisteredModel, chance: random.Random, began: float
) -> Sample:
    """A valid request, JSON or binary, or now and then one that must be refused."""
    is_valid = chance.random() >= MALFORMED_RATIO
    x = round(chance.random(), 3)
    body, headers = _valid(x, chance) if is_valid else (chance.choice(_BAD), {})
    started = monotonic() - began
    try:
        answer = await client.post(f"/v2/models/{model.name}/infer", content=body, headers=headers)
    except httpx.HTTPError as error:
        return Sample(is_valid, started, monotonic() - began, type(error).__name__)
    ended = monotonic() - began
    if not is_valid:
        refused = 400 <= answer.status_code < 500
        return Sample(False, started, ended, None if refused else f"{answer.status_code}")
    if answer.status_code != httpx.codes.OK:
        return Sample(True, started, ended, f"{answer.status_code} {answer.text[:80]}")
    told = answer.json()
    wanted = x + model.constants[told["model_version"]]
    data = told["outputs"][0]["data"]
    return Sample(True, started, ended, is_wrong=any(abs(value - wanted) > _TOLERANCE for value in data))


def _valid(x: float, chance: random.Random) -> tuple[bytes, dict[str, str]]:
    return _binary(x) if chance.random() < _BINARY_RATIO else _json(x)


def _json(x: float) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [x, x, x]}
    return json.dumps({"inputs": [tensor]}).encode(), {"content-type": "application/json"}


def _binary(x: float) -> tuple[bytes, dict[str, str]]:
    raw = struct.pack("<3f", x, x, x)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + raw, {"inference-header-content-length": str(len(head))}
