"""ONNX through ONNX Runtime on the CPU; the only importer of onnxruntime.

Tensor specs come from the file's proto: the session merges shapes leniently, and would declare
what a broken graph really returns instead of what it promised.
"""

from collections.abc import Mapping

import onnx
import onnxruntime

from serving.core.datatypes import Array, datatype_of
from serving.core.errors import ArtifactRefused
from serving.core.model import TensorSpec
from serving.formats.artifact import Artifact
from serving.formats.loader import Interrupted
from serving.formats.onnx_file import read_onnx

_EXPORT_AGAIN = "export the model again, check it with onnx.checker, and log it again"
_UNSENDABLE = frozenset({"BF16"})  # ONNX Runtime takes no numpy arrays of it
_LOG_ERRORS_ONLY = 3


class OnnxModel:
    """A session and the specs its file declares."""

    platform = "onnx_onnxv1"

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._output_names = [spec.name for spec in outputs]
        self._interruptible = onnxruntime.RunOptions()
        self._is_interrupted = False
        self.inputs = inputs
        self.outputs = outputs

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if self._session is None:
            raise RuntimeError("the model is closed")
        results = self._session.run(self._output_names, dict(inputs))
        return dict(zip(self._output_names, results, strict=True))

    def predict_interruptibly(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        session = self._session
        if session is None:
            raise RuntimeError("the model is closed")
        if self._is_interrupted:
            self._is_interrupted = self._interruptible.terminate = False
        try:
            results = session.run(self._output_names, dict(inputs), self._interruptible)
        except Exception as error:
            if self._is_interrupted:
                raise Interrupted from error
            raise
        return dict(zip(self._output_names, results, strict=True))

    def interrupt(self) -> None:
        """Stop before the graph's next node, or the next turn of a loop in it."""
        self._is_interrupted = self._interruptible.terminate = True

    def close(self) -> None:
        self._session = None


def load(artifact: Artifact, threads: int) -> OnnxModel:
    """Load the artifact. Raises ArtifactRefused for a file that is damaged, unsafe or unsupported."""
    proto = read_onnx(artifact.payload)
    graph = proto.graph
    weights = {tensor.name for tensor in graph.initializer} | {
        tensor.values.name for tensor in graph.sparse_initializer
    }
    inputs = tuple(_spec(value, "input") for value in graph.input if value.name not in weights)
    outputs = tuple(_spec(value, "output") for value in graph.output)
    del proto, graph  # a second copy of the weights, not needed while the session makes its own
    return OnnxModel(_session(artifact, threads), inputs, outputs)


def _spec(value: onnx.ValueInfoProto, role: str) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        problem = f"{role} '{value.name}' is a {str(kind).removesuffix('_type')}, not a tensor"
        step = "export it with plain tensors (for scikit-learn converters: options={'zipmap': False})"
        raise ArtifactRefused(problem, next_step=step)
    tensor = value.type.tensor_type
    try:
        datatype = datatype_of(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, ValueError):
        datatype = None
    if datatype is None or datatype in _UNSENDABLE:
        kind = _type_name(tensor.elem_type)
        problem = f"{role} '{value.name}' has element type {kind}, which cannot be served"
        raise ArtifactRefused(problem, next_step="cast it to FP32 at the edge of the graph")
    return TensorSpec(value.name, datatype, _dims(tensor) if tensor.HasField("shape") else None)


def _dims(tensor: onnx.TypeProto.Tensor) -> tuple[int, ...]:
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)


def _type_name(elem_type: int) -> str:
    known = {int(number): str(name) for name, number in onnx.TensorProto.DataType.items()}
    return known.get(elem_type, f"number {elem_type}")


def _session(artifact: Artifact, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS_ONLY
    # Spinning threads burn the cores that the other models and the event loop need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(artifact.payload), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the runtime's exceptions share no base class of their own
        problem = f"ONNX Runtime cannot load '{artifact.payload.name}' ({_one_line(error)})"
        raise ArtifactRefused(problem, next_step=_EXPORT_AGAIN) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
