"""Versions and evaluation sets on disk, and what the measuring process finds in them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from flows.catalog.facts import Facts
from flows.catalog.measure import measure
from flows.catalog.policy import ValidationPolicy
from flows.catalog.task import Notebook, Task
from tests.models import onnx_graph, save_onnx

Array = npt.NDArray[Any]

# Few calls: these tests ask what is said, not how fast this machine is.
QUICK = ValidationPolicy(latency_calls=5, latency_seconds=1.0)


def task(root: Path, champion: Path | None = None, **different: Any) -> Task:
    plain = Task(version="2", root=root, threads=1, deadline_seconds=60.0, policy=QUICK)
    rival: dict[str, Any] = {} if champion is None else {"champion_root": champion, "champion_version": "1"}
    return replace(plain, **rival, **different)


def facts_of(wanted: Task, work: Path) -> Facts:
    """Measured in this process, which these versions leave alive."""
    work.mkdir(parents=True, exist_ok=True)
    notebook = Notebook(work / "facts.json")
    measure(wanted, notebook)
    return notebook.facts


def evaluation_file(folder: Path, inputs: Mapping[str, Array], labels: Array | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"input:{name}": array for name, array in inputs.items()}
    path = folder / "evaluation.npz"
    np.savez(path, allow_pickle=False, **arrays, **({} if labels is None else {"labels": labels}))
    return path


def one_hot_rows(rows: int, width: int = 3) -> Array:
    """Rows whose largest element is at their number modulo `width`: an echo classifies them."""
    return np.eye(width, dtype=np.float32)[np.arange(rows) % width]


def onnx_shifted_classes(folder: Path, width: int = 3) -> Path:
    """`y` is `x` with its last axis turned by one: wrong about every one-hot row."""
    order = helper.make_tensor("order", TensorProto.INT64, [width], [*range(1, width), 0])
    node = helper.make_node("Gather", ["x", "order"], ["y"], axis=1)
    return save_onnx(folder, onnx_graph([node], weights=[order]))


def onnx_batch_mean(folder: Path) -> Path:
    """`y = x - mean of x over the batch`: what a row gets depends on its neighbours."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return save_onnx(folder, onnx_graph(nodes))


def onnx_noise(folder: Path) -> Path:
    """`y = x + noise`, different at each call."""
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"]),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    return save_onnx(folder, onnx_graph(nodes))


def onnx_row_sum(folder: Path, factor: float = 1.0) -> Path:
    """`y = factor * sum of x`, one float per row."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "factor"], ["y"]),
    ]
    weights = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor]),
    ]
    return save_onnx(folder, onnx_graph(nodes, y=("batch", 1), weights=weights))


def onnx_projection(folder: Path, weights: Array) -> Path:
    """`y = x @ weights`, (batch, rows of weights) to (batch, their columns)."""
    held = helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.astype(np.float32).ravel())
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return save_onnx(
        folder,
        onnx_graph([node], x=("batch", weights.shape[0]), y=("batch", weights.shape[1]), weights=[held]),
    )
