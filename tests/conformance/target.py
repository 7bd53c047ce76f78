"""The server under test: its address, the model to ask, and requests that fit that model.

Knows the protocol only. What the model takes is read from its metadata, or given where a server tells
no inputs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

DTYPES: Mapping[str, type] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
DATATYPES = frozenset({*DTYPES, "BYTES", "BF16"})


@dataclass(frozen=True, slots=True)
class Tensor:
    """Name, datatype and shape of a model's input; -1 is any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @staticmethod
    def parse(text: str) -> "Tensor":
        """`x:FP32:-1,3`, as the command line gives it."""
        name, datatype, shape = text.rsplit(":", 2)
        return Tensor(name, datatype, tuple(int(length) for length in shape.split(",") if length))

    def filled(self, seed: int, rows: int) -> Array:
        """Small numbers, others for every seed; free axes are 1 long, the first `rows`."""
        free = [rows if at == 0 else 1 for at in range(len(self.shape))]
        shape = [length if length >= 0 else free[at] for at, length in enumerate(self.shape)]
        numbers = (np.arange(math.prod(shape)) + seed) % 7
        if self.datatype == "BYTES":
            return np.array([f"text {number}" for number in numbers], np.object_).reshape(shape)
        return (
            (numbers % 2 if self.datatype == "BOOL" else numbers).astype(DTYPES[self.datatype]).reshape(shape)
        )


@dataclass
class Target:
    """One server and one of its models; a context manager. `key` opens what needs one."""

    url: str
    model: str
    key: str = ""
    given_inputs: Sequence[Tensor] = ()
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        headers = {"X-API-Key": self.key} if self.key else {}
        self.http = httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30.0)

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    @property
    def path(self) -> str:
        return f"/v2/models/{quote(self.model, safe='')}"

    @cached_property
    def extensions(self) -> frozenset[str]:
        """What the server says it can beyond the protocol."""
        told = self.http.get("/v2").json()
        return frozenset(str(name) for name in told.get("extensions") or ())

    @cached_property
    def metadata(self) -> dict[str, Any]:
        answer = self.http.get(self.path)
        assert answer.status_code == 200, (
            f"no metadata of {self.model}: {answer.status_code} {answer.text[:200]}"
        )
        told: dict[str, Any] = answer.json()
        return told

    @property
    def versions(self) -> list[str]:
        return [str(version) for version in self.metadata.get("versions") or ()]

    @cached_property
    def inputs(self) -> list[Tensor]:
        if self.given_inputs:
            return list(self.given_inputs)
        told = self.metadata.get("inputs") or ()
        return [Tensor(entry["name"], entry["datatype"], tuple(entry["shape"])) for entry in told]

    @property
    def has_batch(self) -> bool:
        """Whether the first axis of every input may have any length."""
        return all(tensor.shape and tensor.shape[0] == -1 for tensor in self.inputs)

    def arrays(self, seed: int = 0, rows: int = 1) -> dict[str, Array]:
        return {tensor.name: tensor.filled(seed, rows) for tensor in self.inputs}

    def request(self, seed: int = 0, rows: int = 1, *, nested: bool = False) -> dict[str, Any]:
        """A good request with JSON tensors."""
        return {
            "inputs": [self.as_json(name, array, nested) for name, array in self.arrays(seed, rows).items()]
        }

    def as_json(self, name: str, array: Array, nested: bool = False) -> dict[str, Any]:
        data = array.tolist() if nested else array.ravel().tolist()
        return self.described(name, array) | {"data": data}

    def described(self, name: str, array: Array) -> dict[str, Any]:
        [datatype] = [tensor.datatype for tensor in self.inputs if tensor.name == name]
        return {"name": name, "shape": list(array.shape), "datatype": datatype}

    def post(self, body: Any, *, version: str | None = None, **options: Any) -> httpx.Response:
        place = f"/versions/{quote(version, safe='')}" if version is not None else ""
        where = f"{self.path}{place}/infer"
        if isinstance(body, bytes):
            return self.http.post(where, content=body, **options)
        return self.http.post(where, json=body, **options)

    def infer(self, body: Any, **options: Any) -> dict[str, Any]:
        """The answer to a request that must succeed."""
        answer = self.post(body, **options)
        assert answer.status_code == 200, f"{answer.status_code} {answer.text[:300]}"
        told: dict[str, Any] = answer.json()
        return told

    def outputs(self, body: Any, **options: Any) -> dict[str, Array]:
        return read_outputs(self.infer(body, **options))

    @cached_property
    def output_names(self) -> list[str]:
        return list(self.outputs(self.request()))


def read_outputs(told: Mapping[str, Any]) -> dict[str, Array]:
    """Arrays by name from an answer with JSON tensors."""
    return {output["name"]: read_tensor(output) for output in told["outputs"]}


def read_tensor(output: Mapping[str, Any]) -> Array:
    dtype: Any = np.object_ if output["datatype"] == "BYTES" else DTYPES[output["datatype"]]
    return np.array(output["data"], dtype).reshape(output["shape"])


def raw_of(datatype: str, array: Array) -> bytes:
    """The tensor's bytes as the binary extension has them."""
    if datatype != "BYTES":
        return array.tobytes()
    texts = [str(item).encode() for item in array.ravel().tolist()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def close(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    """Equal, but for the last bits of floats: batches may be added up in another order."""
    if one.keys() != other.keys():
        return False
    return all(
        np.array_equal(array, other[name])
        if array.dtype == np.object_
        else np.allclose(array, other[name], rtol=1e-4, atol=1e-5)
        for name, array in one.items()
    )
