"""What `mlflow models serve` answers: its own server over one model, asked with bodies from stdin.

    python -m tests.scoring_reference onnx|torch FOLDER signed|unsigned < bodies.jsonl

In a process of its own, so that tests need not import MLflow. One line per body: content type and text;
one line per answer: status and body.
"""

import json
import logging
import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def _client(flavour: str, folder: Path, saved: Path, *, signed: bool) -> Any:
    import mlflow.onnx
    import mlflow.pytorch
    import numpy as np
    import onnx
    import torch
    from mlflow.models import infer_signature
    from mlflow.pyfunc import load_model, scoring_server
    from starlette.testclient import TestClient

    array = np.ones((2, 3), np.float32)
    options: dict[str, Any] = {
        "signature": infer_signature(array, array) if signed else None,
        "pip_requirements": [],
    }
    if flavour == "onnx":
        mlflow.onnx.save_model(onnx.load(folder / "model.onnx"), saved, **options)
    else:
        module = torch.jit.load(folder / "model.pt")  # type: ignore[no-untyped-call]
        mlflow.pytorch.save_model(module, saved, serialization_format="pickle", **options)
    return TestClient(scoring_server.init(load_model(str(saved))), raise_server_exceptions=False)


def main(flavour: str, folder: str, signature: str) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with TemporaryDirectory() as place:
        client = _client(flavour, Path(folder), Path(place) / "model", signed=signature == "signed")
        for line in sys.stdin:
            content_type, text = json.loads(line)
            answer = client.post(
                "/invocations", content=text.encode(), headers={"Content-Type": content_type}
            )
            body = answer.json() if answer.status_code == 200 else None
            print("answer", json.dumps([answer.status_code, body]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
