"""The four clients of `tritonclient` behind one set of asynchronous calls, each untouched underneath."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from numpy.typing import NDArray

from tests.mlflow_registry import MlflowRegistry
from tests.mlflow_server import free_port
from tests.serving_process import ServingProcess

KINDS = ("http", "http-aio", "grpc", "grpc-aio")


@dataclass(frozen=True, slots=True)
class Served:
    """A replica with an ONNX model (champion 2, previous 1; 3 has no alias) and other models' champions 1."""

    serving: ServingProcess
    onnx: str
    torch: str
    text: str
    half: str

    @property
    def http_address(self) -> str:
        return f"127.0.0.1:{self.serving.port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.serving.settings['grpc_port']}"

    @property
    def key(self) -> dict[str, str]:
        return {"x-api-key": (self.serving.home / "admin.key").read_text()}


@contextmanager
def serving_all(registry: MlflowRegistry, home: Path) -> Iterator[Served]:
    registry.server.start()
    onnx = registry.model("onnx:1", "onnx:2", "onnx:3", prefix="triton")
    others = [registry.model(recipe, prefix="triton") for recipe in ("torch:1", "echo:8", "echo:10")]
    for model in (onnx, *others):
        model.point("1")
    names = [onnx.name, *(model.name for model in others)]
    settings: dict[str, object] = {"grpc_port": free_port(), "max_body_mb": 8}
    serving = ServingProcess(home, registry.server.url, ",".join(names), settings)
    try:
        serving.start_ready()
        onnx.point("2")
        serving.wait_for(onnx.name, "2")
        serving.wait_for(onnx.name, "1", "previous")
        yield Served(serving, *names)
        serving.assert_nothing_lost()
    finally:
        serving.kill()


class Client:
    """One of the four. A method of the client by its own name; a coroutine function whichever it is."""

    def __init__(self, kind: str, client: Any) -> None:
        self.kind = kind
        self.raw = client
        self.module: Any = tritonclient.http if kind.startswith("http") else tritonclient.grpc

    @property
    def is_http(self) -> bool:
        return self.kind.startswith("http")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.raw, name)
        if self.kind.endswith("aio"):
            return method  # type: ignore[no-any-return]

        async def call(*arguments: Any, **options: Any) -> Any:
            # Here and not in a thread: the greenlets of the HTTP client belong to the one that made them.
            return method(*arguments, **options)

        return call

    async def told(self, name: str, *arguments: Any, **options: Any) -> Any:
        """What a call tells, as plain values: gRPC's clients are asked for JSON."""
        if not self.is_http:
            options["as_json"] = True
        return await getattr(self, name)(*arguments, **options)

    def tensor(
        self, array: NDArray[Any], datatype: str = "FP32", *, name: str = "x", binary: bool = True
    ) -> Any:
        given = self.module.InferInput(name, list(array.shape), datatype)
        if self.is_http:
            given.set_data_from_numpy(array, binary_data=binary)
        else:
            given.set_data_from_numpy(array)
        return given

    def output(self, name: str, *, binary: bool = True, classes: int = 0) -> Any:
        if self.is_http:
            return self.module.InferRequestedOutput(name, binary_data=binary, class_count=classes)
        return self.module.InferRequestedOutput(name, class_count=classes)


@asynccontextmanager
async def client_of(served: Served, kind: str) -> AsyncIterator[Client]:
    """`kind` is one of `KINDS`."""
    modules: dict[str, Any] = {
        "http": tritonclient.http,
        "http-aio": tritonclient.http.aio,
        "grpc": tritonclient.grpc,
        "grpc-aio": tritonclient.grpc.aio,
    }
    address = served.http_address if kind.startswith("http") else served.grpc_address
    client = Client(kind, modules[kind].InferenceServerClient(address))
    try:
        yield client
    finally:
        await client.close()


X = np.array([[0.5, -1.0, 2.0], [3.0, 0.0, 1.0]], np.float32)
