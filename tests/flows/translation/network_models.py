"""Building Core ML layer networks on Linux, and running their translations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from flows.translation.network import network_graph
from serving.core.datatypes import Array
from tests.flows.translation.parity import quiet


def run(model: Any, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs of an ONNX model, given as a file or a message."""
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, dict(feeds))]


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
