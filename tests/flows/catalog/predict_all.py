"""Loads registered versions as MLflow's users do, and compares what they answer with their golden sets.

    python -m tests.flows.catalog.predict_all http://127.0.0.1:5000 adder-0 script-1

A program, so that tests need not import MLflow. Prints one JSON object: by model, the largest difference,
null where no golden set was recorded.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from serving.formats.golden import read_golden


def largest_difference(root: Path) -> float | None:
    import mlflow

    model = mlflow.pyfunc.load_model(str(root))
    golden = read_golden(root)
    if golden is None:
        return None
    only = next(iter(golden.inputs.values()))
    # MLflow's own PyTorch flavour takes a plain array.
    answer = model.predict(only if "pytorch" in model.metadata.flavors else dict(golden.inputs))
    outputs: dict[str, Any] = answer if isinstance(answer, dict) else {next(iter(golden.outputs)): answer}
    return max(float(np.abs(np.asarray(outputs[n]) - want).max()) for n, want in golden.outputs.items())


def main() -> None:
    import mlflow

    warnings.simplefilter("ignore")
    url, *names = sys.argv[1:]
    mlflow.set_tracking_uri(url)
    found = {}
    for name in names:
        root = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/1"))
        found[name] = largest_difference(root)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
