"""What MLflow's `pyfunc` calls to load a model of a flavour of ours (`coreml`, `pt2`), or any other we serve.

Named as `loader_module` in the `MLmodel` file of such versions. It loads as the server does, with every
check, and needs neither pandas nor MLflow: a data frame is taken for what it offers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from serving.core.cpus import cpu_count
from serving.core.datatypes import DTYPES, Array
from serving.core.errors import InvalidRequest
from serving.core.model import TensorSpec
from serving.formats.artifact import inspect_artifact
from serving.formats.loader import LoadedModel, load


class Prediction:
    """A loaded model under pyfunc's interface."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> dict[str, Array]:
        """Every output by name. `data`: arrays by input name, one array, nested lists or a data frame.

        A data frame is either one row of columns per row of the only input, or one column per input.
        Raises InvalidRequest for what does not fit the model's inputs; takes no `params`.
        """
        return self._model.predict(_arrays(self._model.inputs, data))


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> Prediction:
    """`path` is the model's folder, the one that holds `MLmodel`. Raises ArtifactRefused."""
    return Prediction(load(inspect_artifact(Path(path)), cpu_count()))


def _arrays(specs: tuple[TensorSpec, ...], data: Any) -> dict[str, Array]:
    names = [spec.name for spec in specs]
    given = _by_name(names, data)
    if set(given) != set(names):
        raise InvalidRequest(f"the model takes {names}, and {list(given)} were given")
    return {spec.name: _fitting(spec, given[spec.name]) for spec in specs}


def _by_name(names: list[str], data: Any) -> Mapping[str, Any]:
    if isinstance(data, Mapping):
        return {str(name): value for name, value in data.items()}
    columns = getattr(data, "columns", None)
    if columns is not None:
        named = [str(column) for column in columns]
        if set(named) == set(names):
            return {name: _column(data[column]) for name, column in zip(named, columns, strict=True)}
        data = data.to_numpy()
    if len(names) != 1:
        raise InvalidRequest(f"the model takes {names}: give them by name")
    return {names[0]: data}


def _column(column: Any) -> Array:
    """One value per row: a number, or a nested list that is stacked."""
    values = column.to_numpy()
    return np.stack([np.asarray(value) for value in values]) if values.dtype == object else values


def _fitting(spec: TensorSpec, value: Any) -> Array:
    try:
        array = np.asarray(value).astype(DTYPES[spec.datatype])
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"it is no array of {spec.datatype}", tensor=spec.name) from error
    if not spec.accepts_shape(array.shape):
        shapes = f"shape {list(array.shape)}, and the model takes {spec.wire_shape}"
        raise InvalidRequest(f"it has {shapes}", tensor=spec.name)
    return array
