"""What every serving benchmark stands on: an MLflow with digit models, and serving processes over it.

Uses the processes of the tests, so that what is measured is started as what is tested.
"""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mlflow_registry import MlflowRegistry, RegisteredModel, log_models, logged_by
from tests.mlflow_server import MlflowServer
from tests.serving_process import ServingProcess

RECIPES = ("onnx:1", "onnx:2", "torch:1", "torch:2")
HEAVY = ("image", "mobilenet", "heavy:1", "heavy:2")
_SEED = 7


@dataclass
class Ground:
    """One MLflow for all sections; every section names models and homes of its own."""

    folder: Path
    registry: MlflowRegistry
    digits: RegisteredModel

    @property
    def model_file(self) -> Path:
        """The digit network as one ONNX file, for floors and peers."""
        [found] = self.digits.files("1").rglob("*.onnx")
        return found

    @contextmanager
    def serving(self, name: str, models: str, **settings: object) -> Iterator[ServingProcess]:
        process = ServingProcess(self.folder / name, self.registry.server.url, models, settings)
        process.start_ready()
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    server = MlflowServer(folder / "mlflow-home")
    server.start()
    try:
        logged = log_models(server, *RECIPES)
        logged |= logged_by("tests.digits_formats", server.url, str(folder / "digits.npz"))
        logged |= logged_by("benchmarks.models", server.url, *HEAVY)
        registry = MlflowRegistry(server, logged)
        digits = registry.model("digits onnx", prefix="digits")
        digits.point("1")
        yield Ground(folder, registry, digits)
    finally:
        server.stop()


def digits_body() -> bytes:
    """One scan, (1, 1, 8, 8) FP32, as JSON."""
    chance = random.Random(_SEED)
    pixels = [round(chance.random(), 4) for _ in range(64)]
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": pixels}
    return json.dumps({"inputs": [tensor]}).encode()
