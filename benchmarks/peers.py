"""Other servers with the same model, each installed into a virtual environment of its own.

Kept under the folder `benchmarks/.peers`, so that a second run installs nothing.
"""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnxruntime

from benchmarks.ground import Ground
from benchmarks.process import running
from tests.mlflow_server import free_port

_PLACE = Path(__file__).parent / ".peers"

_MLSERVER_RUNTIME = """
import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Digits(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, sess_options=options, providers=["CPUExecutionProvider"]
        )
        self._output = self._session.get_outputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        array = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        [result] = self._session.run([self._output], {payload.inputs[0].name: array})
        output = NumpyCodec.encode_output(self._output, result)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""

_LITSERVE = """
import sys
import litserve
import numpy as np
import onnxruntime


class Digits(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            sys.argv[1], sess_options=options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name

    def decode_request(self, request):
        given = request["inputs"][0]
        return np.asarray(given["data"], np.float32).reshape(given["shape"])

    def predict(self, array):
        return self.session.run(None, {self.input: array})[0]

    def encode_response(self, result):
        return {"outputs": [{"data": result.ravel().tolist(), "shape": list(result.shape)}]}


if __name__ == "__main__":  # its workers are spawned, and import this file
    server = litserve.LitServer(Digits(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
"""

_BENTOML = """
import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Digits:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ["DIGITS_MODEL"], sess_options=options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name

    @bentoml.api
    def predict(self, inputs: list[dict]) -> dict:
        array = np.asarray(inputs[0]["data"], np.float32).reshape(inputs[0]["shape"])
        result = self.session.run(None, {self.input: array})[0]
        return {"outputs": [{"data": result.ravel().tolist(), "shape": list(result.shape)}]}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """`url` answers a POST of a v2 body while the context of `start` lasts."""

    name: str
    start: Callable[[Ground], AbstractContextManager[str]]


def python_of(name: str, *requirements: str) -> Path:
    """The interpreter of a peer's own environment, made and filled on first use."""
    folder = _PLACE / name
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = "\n".join(requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--progress-bar",
            "off",
            *requirements,
        ]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        stamp.write_text(wanted)
    return python


@contextmanager
def mlserver(place: Ground) -> Iterator[str]:
    """The runtime's model settings name version, input and output, so that its metadata does too."""
    python = python_of("mlserver", "mlserver==1.7.1", "onnxruntime", "setuptools<81")
    folder, port = place.folder / "mlserver", free_port()
    folder.mkdir(exist_ok=True)
    (folder / "runtime.py").write_text(_MLSERVER_RUNTIME)
    model = {
        "name": "digits",
        "implementation": "runtime.Digits",
        "parameters": {"uri": str(place.model_file), "version": "1"},
        **_tensors(place.model_file),
    }
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "http_port": port}
    settings |= {"grpc_port": free_port(), "metrics_port": free_port()}
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "settings.json").write_text(json.dumps(settings))
    command: list[str | Path] = [python.parent / "mlserver", "start", folder]
    url = f"http://127.0.0.1:{port}/v2/models/digits"
    with running(command, f"{url}/ready", folder / "log", environment={"PYTHONPATH": str(folder)}):
        yield f"{url}/infer"


def _tensors(model_file: Path) -> dict[str, list[dict[str, object]]]:
    """The digits network's inputs and outputs, all FP32, as MLServer's settings describe them."""
    session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
    sides = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {
        side: [
            {
                "name": tensor.name,
                "datatype": "FP32",
                "shape": [length if isinstance(length, int) else -1 for length in tensor.shape],
            }
            for tensor in tensors
        ]
        for side, tensors in sides.items()
    }


@contextmanager
def mlflow_serve(place: Ground) -> Iterator[str]:
    """`mlflow models serve` of the version itself; asked through /invocations."""
    same = [f"{name}=={version(name)}" for name in ("mlflow", "onnx", "onnxruntime")]
    python = python_of("mlflow", *same)
    port = free_port()
    uri = f"models:/{place.digits.name}/1"
    command: list[str | Path] = [python, "-m", "mlflow", "models", "serve", "-m", uri, "-p", str(port)]
    command += ["--env-manager", "local", "--workers", "1"]
    # It starts `uvicorn` by name.
    path = os.pathsep.join((str(python.parent), os.environ.get("PATH", os.defpath)))
    environment = {"MLFLOW_TRACKING_URI": place.registry.server.url, "PATH": path}
    url = f"http://127.0.0.1:{port}"
    with running(command, f"{url}/ping", place.folder / "mlflow-serve.log", environment=environment):
        yield f"{url}/invocations"


@contextmanager
def litserve(place: Ground) -> Iterator[str]:
    python = python_of("litserve", "litserve==0.2.19", "onnxruntime")
    program, port = place.folder / "litserve_digits.py", free_port()
    program.write_text(textwrap.dedent(_LITSERVE))
    url = f"http://127.0.0.1:{port}"
    command: list[str | Path] = [python, program, place.model_file, str(port)]
    with running(command, f"{url}/health", place.folder / "litserve.log"):
        yield f"{url}/predict"


@contextmanager
def bentoml(place: Ground) -> Iterator[str]:
    python = python_of("bentoml", "bentoml==1.4.40", "onnxruntime")
    folder, port = place.folder / "bentoml", free_port()
    folder.mkdir(exist_ok=True)
    (folder / "digits_service.py").write_text(_BENTOML)
    command: list[str | Path] = [python, "-m", "bentoml", "serve", "digits_service:Digits"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "DIGITS_MODEL": str(place.model_file),
        "BENTOML_HOME": str(folder / "home"),
        "BENTOML_DO_NOT_TRACK": "true",
        "PATH": os.pathsep.join((str(python.parent), os.environ.get("PATH", os.defpath))),
    }
    url = f"http://127.0.0.1:{port}"
    log = folder / "log"
    with running(command, f"{url}/readyz", log, environment=environment, folder=folder):
        yield f"{url}/predict"


MLSERVER, MLFLOW, LITSERVE, BENTOML = (
    Peer("MLServer 1.7.1", mlserver),
    Peer("mlflow models serve", mlflow_serve),
    Peer("LitServe 0.2.19", litserve),
    Peer("BentoML 1.4.40", bentoml),
)
