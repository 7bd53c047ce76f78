"""The scoring protocol beside MLflow's own server: the same bodies to the same models, answer by answer."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mlflow_double import MlflowDouble
from tests.models import describe, onnx_adder, torch_adder
from tests.station import station
from tests.story import eventually, story

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
JSON, CSV = "application/json", "text/csv"
SPLIT = {"columns": ["a", "b", "c"], "data": [[1.5, 2, 3], [4, 5, 6]]}
RECORDS = [{"a": 1.5, "b": 2, "c": 3}, {"c": 6, "a": 4, "b": 5}]
FLOATS = [[1.5, 2.0, 3.0], [4.5, 5.5, 6.5]]
TENSOR = [("x", "float32", (-1, 3))]

BODIES: dict[str, tuple[str, object]] = {
    "inputs": (JSON, {"inputs": FLOATS}),
    "inputs-by-name": (JSON, {"inputs": {"x": FLOATS}}),
    "instances": (JSON, {"instances": FLOATS}),
    "instances-by-name": (JSON, {"instances": [{"x": row} for row in FLOATS]}),
    "split": (JSON, {"dataframe_split": SPLIT | {"data": FLOATS}}),
    "split-with-index": (JSON, {"dataframe_split": SPLIT | {"data": FLOATS, "index": [3, 4]}}),
    "split-without-columns": (JSON, {"dataframe_split": {"data": FLOATS}}),
    "split-of-mixed-numbers": (JSON, {"dataframe_split": SPLIT}),
    "records": (JSON, {"dataframe_records": RECORDS}),
    "csv": (CSV, "a,b,c\n1.5,2.5,3.5\n4.5,5.5,6.5\n"),
    "csv-with-charset": ("text/csv; charset=utf-8", "a,b,c\n1.5,2.5,3.5\n"),
    "params": (JSON, {"inputs": FLOATS, "params": {"k": 1}}),
    "integers": (JSON, {"inputs": [[1, 2, 3]]}),
    "two-forms": (JSON, {"inputs": FLOATS, "instances": FLOATS}),
    "no-form": (JSON, {}),
    "list": (JSON, FLOATS),
    "no-json": (JSON, "{"),
    "nothing": (JSON, ""),
    "text-in-numbers": (JSON, {"inputs": [["a", 2.0, 3.0]]}),
    "ragged": (JSON, {"inputs": [[1.5], [1.5, 2.5]]}),
    "too-narrow": (JSON, {"inputs": [[1.5, 2.5]]}),
    "split-of-a-list": (JSON, {"dataframe_split": [1]}),
    "records-of-an-object": (JSON, {"dataframe_records": {"a": 1}}),
    "short-row": (JSON, {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1.5, 2.5]]}}),
    "plain-text": ("text/plain", "x"),
    "latin-1": ("application/json; charset=latin-1", "{}"),
    "old-format": ("application/json; format=pandas-split", "{}"),
}
# What MLflow's server refuses or fails on, and a caller may nevertheless want: ours answers.
WE_ANSWER = {
    "inputs-by-name",
    "instances-by-name",
    "csv",
    "csv-with-charset",
    "integers",
    "split-of-mixed-numbers",
    "records",
}
MAKERS = {"onnx": onnx_adder, "torch": torch_adder}


def texts() -> list[tuple[str, str]]:
    return [(kind, body if isinstance(body, str) else json.dumps(body)) for kind, body in BODIES.values()]


def reference(flavour: str, folder: Path, signature: str) -> list[tuple[int, Any]]:
    run = subprocess.run(
        [sys.executable, "-m", "tests.scoring_reference", flavour, str(folder), signature],
        input="\n".join(json.dumps(body) for body in texts()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    lines = [line.removeprefix("answer ") for line in run.stdout.splitlines() if line.startswith("answer ")]
    return [(status, body) for status, body in map(json.loads, lines)]


@pytest.mark.parametrize("signature", ["signed", "unsigned"])
@pytest.mark.parametrize("flavour", ["onnx", "torch"])
@story
async def test_answers_are_those_of_mlflows_own_server(
    home: Path, double: MlflowDouble, tmp_path: Path, flavour: str, signature: str
) -> None:
    """Equal where MLflow answers; refused where it refuses, but for what we take beyond it."""
    folder = MAKERS[flavour](tmp_path / "model", 2.0)
    theirs = reference(flavour, folder, signature)
    if signature == "signed":
        describe(folder, flavor={"onnx": "onnx", "torch": "pytorch"}[flavour], inputs=TENSOR, outputs=TENSOR)
    double.add("m", folder)
    double.point("m", "1")
    differing, compared = {}, 0
    async with station(home, double) as server:

        async def is_ready() -> bool:
            return (await server.http.get("/v2/models/m/ready")).status_code == 200

        await eventually(is_ready, "the model answers")
        for label, (kind, text), (status, body) in zip(BODIES, texts(), theirs, strict=True):
            answer = await server.http.post("/invocations", content=text, headers={"Content-Type": kind})
            ours = (answer.status_code, answer.json() if answer.status_code == 200 else None)
            if status == 200:
                compared += 1
                if ours != (status, body):
                    differing[label] = (status, body, ours)
            elif (ours[0] == 200 and label not in WE_ANSWER) or ours[0] >= 500:
                differing[label] = (status, body, ours)
    assert differing == {}
    assert compared >= 4
