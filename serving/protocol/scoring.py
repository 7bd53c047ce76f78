"""`POST /invocations`: MLflow's scoring protocol over the same core, for clients of `mlflow models serve`.

Answers are shaped as MLflow's flavours shape them: ONNX by output name, TorchScript the one output bare;
for a table to a model without signature, records.
"""

import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter
from fastapi.responses import Response

from serving.accounts import Answer
from serving.api.body import Receive
from serving.api.encoding import read_content
from serving.core.datatypes import DTYPES, Array
from serving.core.errors import InvalidRequest, NotServed
from serving.core.model import Format
from serving.inference import Inference
from serving.protocol.answer import Body
from serving.protocol.catalogue import Catalogue
from serving.protocol.deadline import timeout_seconds
from serving.protocol.infer import Send, send_answer
from serving.protocol.json_data import plain
from serving.protocol.scoring_forms import Scoring, parse_scoring


class ScoringEndpoint:
    """`POST /invocations` where one model is served, `POST /models/{model}/invocations` where several are."""

    def __init__(
        self,
        inference: Inference,
        names: Callable[[], list[str]],
        *,
        max_body_bytes: int,
        timeout_seconds: float,
    ) -> None:
        self._inference = inference
        self._names = names
        self._max_body_bytes = max_body_bytes
        self._timeout_seconds = timeout_seconds

    async def __call__(
        self,
        model: str | None,
        address: str | None,
        headers: Mapping[str, str],
        request_id: str,
        key: str,
        receive: Receive,
        send: Send,
    ) -> None:
        arrived = time.monotonic()
        raw = await read_content(receive, headers, self._max_body_bytes)
        request = parse_scoring(bytes(raw), headers.get("content-type", ""))
        route = self._inference.route(self._only_model() if model is None else model, address, key)
        timeout = timeout_seconds({}, headers.get("x-request-timeout"), self._timeout_seconds)
        answer = await self._inference.infer(
            route, request.fit, deadline=arrived + timeout, request_id=request_id, finite=True
        )
        began_ns = time.perf_counter_ns()
        content = orjson.dumps(
            {"predictions": predictions(request, answer)}, option=orjson.OPT_SERIALIZE_NUMPY
        )
        self._inference.rendered(answer, began_ns)
        await send_answer(send, answer, Body(content), request_id, headers.get("accept-encoding"))

    def _only_model(self) -> str:
        names = self._names()
        if not names:
            raise NotServed("no model is served", exists=[])
        if len(names) > 1:
            ways = ", ".join(f"/models/{name}/invocations" for name in names)
            raise InvalidRequest(f"this server serves {len(names)} models: ask at {ways}")
        return names[0]


def predictions(request: Scoring, answer: Answer) -> object:
    """What MLflow's server would answer for a model of this format, given the same outputs."""
    artifact = answer.version.artifact
    is_bare = artifact.format in (Format.TORCHSCRIPT, Format.PT2) and len(answer.outputs) == 1
    if artifact.signature_inputs is None and request.table(answer.version.model.inputs) is not None:
        return _records(answer.outputs, is_bare=is_bare)
    nested = {name: _nested(name, array) for name, array in answer.outputs.items()}
    return next(iter(nested.values())) if is_bare else nested


def _nested(name: str, array: Array) -> object:
    if array.dtype == np.object_ or array.dtype.kind in "US":
        return np.array(plain(name, array), dtype=np.object_).reshape(array.shape).tolist()
    if array.dtype in (DTYPES["FP16"], DTYPES["BF16"]):
        array = array.astype(np.float32)
    # A copy only where the layout needs one; a scalar has no axis for the encoder to write.
    return np.ascontiguousarray(array) if array.ndim else array.item()


def _records(outputs: Mapping[str, Array], *, is_bare: bool) -> list[dict[str, Any]]:
    """A dataframe's rows: of a bare output one column per element, else one per output, each flattened."""
    if is_bare:
        [(name, array)] = outputs.items()
        if array.ndim > 2:
            raise InvalidRequest("has more than two axes, which no table holds: send 'inputs'", tensor=name)
        rows = array.reshape(array.shape[0] if array.ndim else 1, -1) if array.size else array
        columns = {str(at): rows[:, at] for at in range(rows.shape[1])} if array.size else {}
    else:
        columns = {name: array.reshape(-1) for name, array in outputs.items()}
    lists = {name: _list(name, column) for name, column in columns.items()}
    lengths = {len(column) for column in lists.values()}
    if len(lengths) > 1:
        raise InvalidRequest("outputs of different lengths fit into no table: send 'inputs'")
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _list(name: str, column: Array) -> list[Any]:
    values: Any = plain(name, column)
    return values if isinstance(values, list) else list(values.tolist())


def scoring_routes(catalogue: Catalogue) -> APIRouter:
    """What `mlflow models serve` answers beside predictions."""
    router = APIRouter(tags=["MLflow scoring"])

    @router.get("/ping")
    @router.get("/health")
    async def ping() -> Response:
        status = 503 if catalogue.waiting_for() else 200
        return Response(content="\n", status_code=status, media_type="application/json")

    @router.get("/version")
    async def version() -> Response:
        return Response(content=_mlflow_version(), media_type="application/json")

    return router


def _mlflow_version() -> str:
    """The version whose protocol this is; read from the package's metadata, MLflow itself is not loaded."""
    try:
        return installed_version("mlflow")
    except PackageNotFoundError:
        return installed_version("signalbox")
