"""Triton's model configuration extension: one version's tensors and settings in the shape of its `config`.

Source: Triton `extension_model_configuration`, message `ModelConfig`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.core.model import Format, TensorSpec
from serving.pool import LoadedVersion

_BACKENDS = {
    Format.ONNX: "onnxruntime",
    Format.TORCHSCRIPT: "pytorch",
    Format.PT2: "pytorch",
    Format.COREML: "coreml",
}


@dataclass(frozen=True, slots=True)
class Batching:
    """How requests are joined: at most `max_rows` of them, waiting at most `max_delay_microseconds`."""

    max_rows: int
    max_delay_microseconds: int


def configuration(
    version: LoadedVersion, addressable: Sequence[str], batching: Batching | None
) -> dict[str, Any]:
    """With `batching`, `dims` leave out the batch axis, as Triton's do; without it they are whole shapes."""
    model = version.model
    skipped = 1 if batching is not None else 0
    told: dict[str, Any] = {
        "name": version.ref.model,
        "platform": model.platform,
        "backend": _BACKENDS[version.artifact.format],
        "version_policy": {"specific": {"versions": [int(number) for number in addressable]}},
        "max_batch_size": batching.max_rows if batching is not None else 0,
        "input": [_tensor(spec, skipped) for spec in model.inputs],
        "output": [_tensor(spec, skipped) for spec in model.outputs],
        "instance_group": [{"name": version.ref.model, "kind": "KIND_CPU", "count": 1}],
        "default_model_filename": version.artifact.payload.name,
        "parameters": {"digest": {"string_value": version.provenance.digest}},
    }
    if batching is not None:
        told["dynamic_batching"] = {"max_queue_delay_microseconds": batching.max_delay_microseconds}
    return told


def _tensor(spec: TensorSpec, skipped: int) -> dict[str, Any]:
    data_type = "TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}"
    return {"name": spec.name, "data_type": data_type, "dims": spec.wire_shape[skipped:]}
