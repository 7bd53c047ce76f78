"""The declared evaluation set: real inputs with the right answers, named by a tag in the registry.

`signalbox.evaluation_set` on a version, else on its model, is `runs:/<run id>/<path>.npz` or
`mlflow-artifacts:/<path>.npz`: an archive of `input:<name>` arrays and `labels`, one row per example.
`classes` may name the columns of a classifier's scores, so that labels may be text. A router's set has
`route_values` (rows, routes), more being better, or `route_costs`, less being better; its labels may be
left out. Every way in which a set cannot be used is an `EvaluationRefused` in one sentence.
"""

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import numpy as np

from flows.catalog.facts import Metric
from serving.core.datatypes import Array, datatype_of
from serving.core.errors import RegistryUnavailable, SignalboxError
from serving.core.model import Tag, TensorSpec

_RUN = "/api/2.0/mlflow/runs/get"
_PROXY = "/api/2.0/mlflow-artifacts/artifacts"
_INPUT = "input:"
_LABELS = "labels"
_CLASSES = "classes"
_VALUES = "route_values"
_COSTS = "route_costs"
_MAX_BYTES = 2 << 30
_TIMEOUT = httpx.Timeout(5.0, read=30.0)


class EvaluationRefused(SignalboxError):
    """The declared evaluation set cannot be used, for the reason given."""


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Arrays whose first axis counts rows, `labels` (rows,), and of a router what each route is worth:
    `routes` (rows, routes) float64, more being better.
    """

    inputs: Mapping[str, Array]
    labels: Array
    routes: Array | None = None

    @property
    def rows(self) -> int:
        return len(self.labels)

    def truth(self, metric: Metric) -> Array:
        """What answers are held against: labels (rows,), or routes where they are scored by regret."""
        return self.routes if metric is Metric.REGRET and self.routes is not None else self.labels


def declared(model_tags: Mapping[str, str], version_tags: Mapping[str, str]) -> str | None:
    """Where the set lies; what a version says of itself outranks what its model says."""
    return version_tags.get(Tag.EVALUATION_SET) or model_tags.get(Tag.EVALUATION_SET) or None


def download(client: httpx.Client, uri: str, target: Path) -> Path:
    """Fetch the set through MLflow's artifact proxy into the file `target`.

    Raises:
        EvaluationRefused: the address is none that can be read, or nothing lies there.
        RegistryUnavailable: MLflow failed on the way.
    """
    try:
        remote = _remote_path(client, uri)
        with client.stream("GET", f"{_PROXY}/{quote(remote)}", timeout=_TIMEOUT) as response:
            if response.status_code == httpx.codes.NOT_FOUND:
                raise EvaluationRefused(f"there is no evaluation set at {uri}")
            response.raise_for_status()
            _save(response, uri, target)
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        reason = str(error) or type(error).__name__
        raise RegistryUnavailable(f"the evaluation set {uri} could not be fetched: {reason}") from error
    return target


def read_evaluation(path: Path) -> EvaluationSet:
    """The set in a file. Raises `EvaluationRefused` for one that is damaged or incomplete."""
    try:
        with zipfile.ZipFile(path) as archive:
            size_bytes = sum(member.file_size for member in archive.infolist())
        if size_bytes > _MAX_BYTES:
            raise EvaluationRefused(f"the evaluation set holds more than {_MAX_BYTES >> 20} MB")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: _plain(stored[name]) for name in stored.files}
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        raise EvaluationRefused("the evaluation set is damaged or is no .npz file of plain arrays") from None
    return _checked(arrays)


def misfit(evaluation: EvaluationSet, specs: Sequence[TensorSpec]) -> str | None:
    """Why a model with these inputs cannot be asked this set, in words, else None."""
    for spec in specs:
        array = evaluation.inputs.get(spec.name)
        if array is None:
            held = ", ".join(sorted(evaluation.inputs))
            return f"the evaluation set has no input '{spec.name}' (it has {held})"
        if spec.dims is None:
            continue
        datatype = datatype_of(array.dtype)
        # Files hold no BF16; single precision holds every value of it.
        if datatype != spec.datatype and (datatype, spec.datatype) != ("FP32", "BF16"):
            found = datatype or array.dtype
            return f"input '{spec.name}' of the evaluation set is {found}, the model takes {spec.datatype}"
        if not spec.dims or not spec.accepts_shape((max(spec.dims[0], 1), *array.shape[1:])):
            shape = list(array.shape)
            wanted = spec.wire_shape
            return f"input '{spec.name}' of the evaluation set has shape {shape}, the model takes {wanted}"
    return None


def _remote_path(client: httpx.Client, uri: str) -> str:
    """The set's path in the artifact store that MLflow proxies."""
    parts = urlsplit(uri)
    path = PurePosixPath(parts.path.strip("/"))
    if parts.scheme not in ("runs", "mlflow-artifacts") or path.suffix != ".npz" or ".." in path.parts:
        forms = "runs:/<run id>/<path>.npz or mlflow-artifacts:/<path>.npz"
        raise EvaluationRefused(f"the evaluation set '{uri}' must be given as {forms}")
    if parts.scheme == "mlflow-artifacts":
        return str(path)
    run_id, *inner = path.parts
    base = urlsplit(_artifact_uri(client, run_id))
    if base.scheme != "mlflow-artifacts":
        problem = f"the artifacts of run {run_id} lie at '{base.scheme or 'file'}:', which is not read"
        raise EvaluationRefused(f"{problem}; let the MLflow server proxy artifacts")
    return "/".join([base.path.strip("/"), *inner])


def _artifact_uri(client: httpx.Client, run_id: str) -> str:
    response = client.get(_RUN, params={"run_id": run_id})
    if response.status_code == httpx.codes.NOT_FOUND:
        raise EvaluationRefused(f"the evaluation set names run {run_id}, which MLflow does not have")
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return str(answer["run"]["info"]["artifact_uri"])


def _save(response: httpx.Response, uri: str, target: Path) -> None:
    size_bytes = 0
    with target.open("wb") as file:
        for chunk in response.iter_bytes(1 << 20):
            size_bytes += len(chunk)
            if size_bytes > _MAX_BYTES:
                raise EvaluationRefused(f"the evaluation set {uri} is larger than {_MAX_BYTES >> 20} MB")
            file.write(chunk)


def _checked(arrays: Mapping[str, Array]) -> EvaluationSet:
    inputs = {name.removeprefix(_INPUT): held for name, held in arrays.items() if name.startswith(_INPUT)}
    routes = _routes(arrays)
    labels = arrays.get(_LABELS, routes.argmax(axis=1) if routes is not None else None)
    if not inputs or labels is None:
        held = ", ".join(f"'{name}'" for name in sorted(arrays)) or "nothing"
        lacking = f"'{_INPUT}<name>' arrays" if not inputs else f"'{_LABELS}' array"
        raise EvaluationRefused(f"the evaluation set has no {lacking} (it has {held})")
    rows = {len(array) if array.ndim else None for array in (*inputs.values(), labels)}
    rows |= {len(routes)} if routes is not None else set()
    if len(rows) > 1 or None in rows or labels.ndim != 1:
        shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in sorted(arrays.items()))
        raise EvaluationRefused(f"the evaluation set needs one label per row of each input, but has {shapes}")
    if math.prod(labels.shape) == 0:
        raise EvaluationRefused("the evaluation set has no rows")
    return EvaluationSet(inputs, _numbered(labels, arrays.get(_CLASSES)), routes)


def _routes(arrays: Mapping[str, Array]) -> Array | None:
    """What each route is worth, whether told as values or as costs."""
    told = [name for name in (_VALUES, _COSTS) if name in arrays]
    if not told:
        return None
    name, array = told[0], arrays[told[0]]
    if len(told) > 1:
        raise EvaluationRefused(f"the evaluation set has both '{_VALUES}' and '{_COSTS}'; give one of them")
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "iuf":
        shape = f"{array.dtype} {list(array.shape)}"
        raise EvaluationRefused(f"'{name}' of the evaluation set must be numbers (rows, routes), not {shape}")
    if not np.isfinite(array).all():
        raise EvaluationRefused(f"'{name}' of the evaluation set holds NaN or infinity")
    return array.astype(np.float64) * (-1.0 if name == _COSTS else 1.0)


def _numbered(labels: Array, classes: Array | None) -> Array:
    """Labels as the number of their class where the set names its classes."""
    if classes is None:
        return labels
    if classes.ndim != 1:
        raise EvaluationRefused(
            f"'{_CLASSES}' of the evaluation set has shape {list(classes.shape)}, not (classes,)"
        )
    numbers = {name: at for at, name in enumerate(classes.tolist())}
    unknown = next((label for label in labels.tolist() if label not in numbers), None)
    if unknown is not None:
        raise EvaluationRefused(f"label '{unknown}' is none of the evaluation set's '{_CLASSES}'")
    return np.array([numbers[label] for label in labels.tolist()], dtype=np.int64)


def _plain(array: Array) -> Array:
    return array.astype(np.object_) if array.dtype.kind == "U" else array
