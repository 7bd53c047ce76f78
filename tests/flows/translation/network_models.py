"""Building Core ML layer networks on Linux, and running their translations."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from flows.translation.core_ml import translate
from flows.translation.network import network_graph
from serving.core.datatypes import Array
from tests.flows.translation.network_cases import NetworkCase


@contextmanager
def quiet() -> Iterator[None]:
    """coremltools warns that it cannot predict on Linux, and of untested library versions."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def converted(module: torch.nn.Module, inputs: Sequence[torch.Tensor], **options: Any) -> Any:
    """The module as a `neuralnetwork` MLModel with inputs x0, x1, ... unless `inputs` are given."""
    with quiet():
        import coremltools

        given = options.pop("features", None)
        features = given or [
            coremltools.TensorType(
                name=f"x{place}",
                shape=tuple(one.shape),
                dtype=np.int32 if one.dtype == torch.int32 else np.float32,
            )
            for place, one in enumerate(inputs)
        ]
        traced = torch.jit.trace(module, tuple(inputs), check_trace=False)
        return coremltools.convert(traced, convert_to="neuralnetwork", inputs=features, **options)


def run(model: Any, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs of an ONNX model, given as a file or a message."""
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, dict(feeds))]


def difference(case: NetworkCase, folder: Path) -> float:
    """Largest absolute difference between the module and its translation, through files."""
    module, inputs = case.module(), case.inputs()
    with torch.no_grad():
        expected = module(*inputs).numpy()
    source, target = folder / f"{case.name}.mlmodel", folder / f"{case.name}.onnx"
    with quiet():
        converted(module, inputs).save(str(source))
    translate(source, target)
    actual = run(target, {f"x{place}": one.numpy() for place, one in enumerate(inputs)})[0]
    assert actual.size == expected.size, (actual.shape, expected.shape)
    return float(np.abs(actual.reshape(expected.shape).astype(np.float64) - expected).max())


@dataclass(frozen=True, slots=True)
class Built:
    """A network put together layer by layer; `spec` may be changed before it is translated."""

    spec: Any

    def run(self, **feeds: Array) -> list[Array]:
        return run(network_graph(self.spec), feeds)


def built(
    add: Callable[[Any], None],
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Sequence[str] = ("y",),
    exact: bool = True,
    mode: str | None = None,
) -> Built:
    """A network of float32 arrays; without `exact`, one of the first versions with five axes."""
    with quiet():
        from coremltools.models import datatypes
        from coremltools.models.neural_network import NeuralNetworkBuilder

        builder = NeuralNetworkBuilder(
            [(name, datatypes.Array(*shape)) for name, shape in inputs.items()],
            [(name, None) for name in outputs],
            mode=mode,
            disable_rank5_shape_mapping=exact,
            use_float_arraytype=True,
        )
        add(builder)
    return Built(builder.spec)
