"""Other servers with the same model, each installed into a virtual environment of its own.

Kept under the folder `benchmarks/.peers`, so that a second run installs nothing.
"""

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

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


server = litserve.LitServer(Digits(), accelerator="cpu", workers_per_device=1)
server.run(port=int(sys.argv[2]), generate_client_file=False)
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
    python = python_of("mlserver", "mlserver==1.7.1", "onnxruntime", "setuptools<81")
    folder, port = place.folder / "mlserver", free_port()
    folder.mkdir(exist_ok=True)
    (folder / "runtime.py").write_text(_MLSERVER_RUNTIME)
    parameters = f'{{"uri": "{place.model_file}"}}'
    (folder / "model-settings.json").write_text(
        f'{{"name": "digits", "implementation": "runtime.Digits", "parameters": {parameters}}}'
    )
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    told = ", ".join(f'"{key}": {value}' for key, value in ports.items())
    (folder / "settings.json").write_text(f'{{"host": "127.0.0.1", "parallel_workers": 0, {told}}}')
    command: list[str | Path] = [python.parent / "mlserver", "start", folder]
    url = f"http://127.0.0.1:{port}/v2/models/digits"
    with running(command, f"{url}/ready", folder / "log", environment={"PYTHONPATH": str(folder)}):
        yield f"{url}/infer"


@contextmanager
def mlflow_serve(place: Ground) -> Iterator[str]:
    """`mlflow models serve` of the version itself, in this environment; asked through /invocations."""
    port = free_port()
    uri = f"models:/{place.digits.name}/1"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "-p", str(port)]
    command += ["--env-manager", "local", "--workers", "1"]
    environment = {"MLFLOW_TRACKING_URI": place.registry.server.url}
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


MLSERVER, MLFLOW, LITSERVE = (
    Peer("MLServer 1.7.1", mlserver),
    Peer("mlflow models serve", mlflow_serve),
    Peer("LitServe 0.2.19", litserve),
)
