"""Asks the serving process itself, over the protocol every client uses."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import httpx
import numpy as np

from serving.core.datatypes import Array, datatype_of

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Answered:
    """Who answered, by which route, and its first output."""

    version: str
    variant: str
    output: Array


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Why there was no answer. `is_down` when nobody was there to give one."""

    problem: str
    is_down: bool


def client(url: str, key: str | None, verify: ssl.SSLContext | Literal[True] = True) -> httpx.Client:
    """A client of one serving process, whose certificate `verify` trusts."""
    headers = {"X-API-Key": key} if key else {}
    return httpx.Client(
        base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS, verify=verify, trust_env=False
    )


def ask(serving: httpx.Client, model: str, inputs: Mapping[str, Array]) -> Answered | Unanswered:
    """One inference of the champion, as JSON."""
    body = {"inputs": [_tensor(name, array) for name, array in inputs.items()]}
    try:
        response = serving.post(f"/v2/models/{quote(model, safe='')}/infer", json=body)
    except httpx.HTTPError as error:
        return Unanswered(f"serving does not answer: {str(error) or repr(error)}", is_down=True)
    if response.status_code != httpx.codes.OK:
        return Unanswered(f"answered {response.status_code}: {response.text[:300]}", is_down=False)
    answer: dict[str, Any] = response.json()
    first = answer["outputs"][0]
    output = np.asarray(first["data"]).reshape(first["shape"])
    return Answered(str(answer["model_version"]), str(answer["parameters"]["variant"]), output)


def _tensor(name: str, array: Array) -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": datatype_of(array.dtype),
        "data": array.ravel().tolist(),
    }
