"""What layer networks are refused for: each refusal names the layer, its output and the next step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.translation.core_ml import translate
from flows.translation.layers.layer import TRANSLATORS
from flows.translation.layers.walk import CONTROL, REASONS
from flows.translation.network import layer_counts, network_graph
from flows.translation.refusal import TranslationRefused
from tests.flows.translation.network_models import built, run
from tests.flows.translation.parity import quiet

Change = Callable[[Any], None]


def _small(builder: Any) -> None:
    weights = np.ones((2, 3), np.float32)
    builder.add_inner_product("product", weights, np.zeros(2), 3, 2, True, "x", "p")
    builder.add_activation("positive", "RELU", "p", "y")


def _refused(spec: Any) -> TranslationRefused:
    with pytest.raises(TranslationRefused) as caught:
        network_graph(spec)
    return caught.value


def _layer(spec: Any) -> Any:
    return spec.neuralNetwork.layers[0]


def test_every_unsupported_layer_is_named_when_there_are_several() -> None:
    """Also inside a branch; the first is the refusal's fact."""

    def add(builder: Any) -> None:
        builder.add_random_normal_like("noise", "x", "n")
        custom = builder.add_custom("mine", ["n"], ["c"])
        custom.custom.className = "Swirl"
        branch = builder.add_branch("if", "c").branch.ifBranch.layers.add()
        branch.loopBreak.MergeFromString(b"")
        branch.name = branch.output.append("inside") or "stop"
        builder.add_activation("a", "RELU", "c", "y")

    refusal = _refused(built(add, {"x": (1,)}).spec)
    assert (refusal.operator, refusal.variable) == ("randomNormalLike", "n")
    assert [one.operator for one in refusal.unsupported] == ["randomNormalLike", "custom Swirl", "loopBreak"]
    for name in ("'randomNormalLike' (output 'n')", "'custom Swirl' (output 'c')", "'loopBreak'"):
        assert name in str(refusal)
    assert "export the original model" in str(refusal)


def test_every_kind_of_layer_is_covered_when_the_specification_is_listed() -> None:
    """Translated, or refused with a reason of its own: none falls through."""
    from coremltools.proto import NeuralNetwork_pb2

    kinds = {
        one.name for one in NeuralNetwork_pb2.NeuralNetworkLayer.DESCRIPTOR.oneofs_by_name["layer"].fields
    }
    assert kinds == {*TRANSLATORS, *CONTROL, *REASONS}
    assert TRANSLATORS.keys().isdisjoint(REASONS)


def test_forms_without_counterpart_are_named_together_when_on_separate_paths() -> None:
    """What depends on a refused layer is not blamed for it."""

    def add(builder: Any) -> None:
        weights = [np.ones((3, 3), np.float32)] * 4
        given = (weights, weights, None, 3, 3, ["s"], ["l"])
        builder.add_unilstm("lstm", *given, cell_clip_threshold=3.0)
        builder.add_reduce("where", "s", "w", "HW", "argmax")
        builder.add_elementwise("sum", ["l", "w"], "y", "ADD")

    refusal = _refused(built(add, {"s": (2, 1, 3, 1, 1)}).spec)
    assert [(one.operator, one.variable) for one in refusal.unsupported] == [
        ("uniDirectionalLSTM", "l"),
        ("reduce", "w"),
    ]
    assert "bounds its cell to 3" in str(refusal)


def _cut_weights(spec: Any) -> None:
    del _layer(spec).innerProduct.weights.floatValue[-1]


def _swap_inputs(spec: Any) -> None:
    _layer(spec).input[0] = "nowhere"


def _lose_output(spec: Any) -> None:
    spec.description.output[0].name = "nothing"


def _narrow_input(spec: Any) -> None:
    spec.description.input[0].type.multiArrayType.shape[0] = 4


def _zero_input(spec: Any) -> None:
    spec.description.input[0].type.multiArrayType.shape[0] = 0


def _huge_input(spec: Any) -> None:
    spec.description.input[0].type.multiArrayType.shape[0] = 2**40


def _no_shape(spec: Any) -> None:
    del spec.description.input[0].type.multiArrayType.shape[:]


def _no_layers(spec: Any) -> None:
    del spec.neuralNetwork.layers[:]


def _words(spec: Any) -> None:
    spec.description.input[0].type.stringType.MergeFromString(b"")


def _no_inputs(spec: Any) -> None:
    del _layer(spec).input[:]


def _no_outputs(spec: Any) -> None:
    del _layer(spec).output[:]


def _no_name(spec: Any) -> None:
    spec.description.input[0].name = ""


def _too_many_outputs(spec: Any) -> None:
    _layer(spec).output.append("second")


def _odd_bytes(spec: Any) -> None:
    weights = _layer(spec).innerProduct.weights
    weights.ClearField("floatValue")
    weights.float16Value = b"\0" * 11


@pytest.mark.parametrize(
    ("change", "reason", "variable"),
    [
        (
            _cut_weights,
            r"'product' of kind 'innerProduct' \(output 'p'\) field 'weights' holds 5 values",
            "p",
        ),
        (_odd_bytes, "field 'weights' holds 11 bytes, which is no whole number", "p"),
        (_swap_inputs, "reads 'nowhere', which nothing before it gives", "p"),
        (_no_outputs, "gives no output", "product"),
        (_no_name, "an input or output has no name", None),
        (_no_inputs, "has 0 of at least 1 inputs", "p"),
        (_too_many_outputs, "names 2 outputs of 1", "p"),
        (_narrow_input, r"takes 3 values, and its input has shape \[4\]", "p"),
        (_lose_output, "no layer gives the declared output 'nothing'", "nothing"),
        (_zero_input, r"'x' declares the shape \[0\]", "x"),
        (_huge_input, r"'x' declares the shape \[1099511627776\]", "x"),
        (_no_shape, "input 'x' declares no shape", "x"),
        (_words, "'x' is of type 'stringType'", "x"),
        (_no_layers, "the network has no layers", None),
    ],
)
def test_network_is_refused_when_it_does_not_add_up(
    change: Change, reason: str, variable: str | None
) -> None:
    """The sentence says where and what, and what to do next."""
    spec = built(_small, {"x": (3,)}).spec
    change(spec)
    with pytest.raises(TranslationRefused, match=reason) as caught:
        network_graph(spec)
    assert caught.value.variable == variable
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("add", "shape", "reason"),
    [
        (lambda b: b.add_squeeze("s", "x", "y", [0]), (2, 3), "drops axes"),
        (lambda b: b.add_transpose("t", [0, 0], "x", "y"), (2, 3), "permutes 2 axes by"),
        (lambda b: b.add_reshape_static("r", "x", "y", (4, 2)), (2, 3), "turns shape"),
        (lambda b: b.add_reshape_static("r", "x", "y", (-1, -1)), (2, 3), "target shape"),
        (lambda b: b.add_split_nd("s", "x", ["y", "z"], 1), (2, 3), "into 2 equal parts"),
        (lambda b: b.add_concat_nd("c", ["x", "x"], "y", 5), (2, 3), "names axis 5 of 2"),
        (lambda b: b.add_softmax("s", "x", "y"), (2, 3), "rank 3 or more"),
        (lambda b: b.add_sliding_windows("s", "x", "y", 0, 9, 1), (2, 3), "windows of 9 elements out of 2"),
        (lambda b: b.add_fill_static("f", "y", (2**20, 2**20), 1.0), (2, 3), "more than the"),
        (lambda b: b.add_range_static("r", "y", None, 1e30, 0, 1e-30), (2, 3), "makes"),
        (
            lambda b: b.add_padding("p", 3, 3, 3, 3, 0, "x", "y", "reflection"),
            (1, 2, 2, 2),
            "reflects 3 elements of an axis that has 2",
        ),
        (lambda b: b.add_resize_bilinear("r", "x", "y", 0, 2), (1, 2, 2, 2), "makes an image of 0 by 2"),
        (lambda b: b.add_pooling("p", 5, 5, 1, 1, "MAX", "VALID", "x", "y"), (1, 2, 2, 2), "pools over"),
        (lambda b: b.add_pooling("p", 2, 2, 0, 1, "MAX", "VALID", "x", "y"), (1, 2, 2, 2), "none of which"),
        (lambda b: b.add_global_pooling3d("p", "x", "y", "MAX"), (1, 2, 2, 2), "an input of rank 5"),
        (lambda b: b.add_bias("b", np.ones(5), "x", "y", [5]), (1, 2, 2, 2), "(?i)incompatible|mismatch"),
    ],
)
def test_layer_is_refused_when_it_contradicts_its_input(
    add: Change, shape: tuple[int, ...], reason: str
) -> None:
    """Before any runtime sees the graph."""
    with pytest.raises(TranslationRefused, match=reason):
        network_graph(built(add, {"x": shape}).spec)


def test_other_kinds_of_model_are_refused_when_given() -> None:
    """By the name of their kind."""
    spec = built(_small, {"x": (3,)}).spec
    spec.glmRegressor.MergeFromString(b"")
    refusal = _refused(spec)
    assert "'glmRegressor'" in str(refusal)


def test_layers_are_counted_when_nested_too() -> None:
    """For the report of what a model holds."""

    def add(builder: Any) -> None:
        _small(builder)
        inner = builder.add_loop("loop", max_iterations=2).loop.bodyNetwork.layers.add()
        inner.activation.ReLU.MergeFromString(b"")

    counts = layer_counts(built(add, {"x": (3,)}).spec)
    assert counts == {"innerProduct": 1, "activation": 2, "loop": 1}


def _saved(folder: Path) -> Path:
    source = folder / "small.mlmodel"
    source.write_bytes(built(_small, {"x": (3,)}).spec.SerializeToString())
    return source


@pytest.mark.parametrize("size", [0, 1, 40, 100])
def test_file_is_refused_when_truncated(tmp_path: Path, size: int) -> None:
    """In a sentence, and nothing appears at the target."""
    source, target = _saved(tmp_path), tmp_path / "out.onnx"
    source.write_bytes(source.read_bytes()[:size])
    with pytest.raises(TranslationRefused):
        translate(source, target)
    assert not target.exists()


@settings(max_examples=60, deadline=None)
@example(place=282, value=9)  # the output is a field nobody knows: the network has none
@given(place=st.integers(0, 400), value=st.integers(0, 255))
def test_file_is_translated_or_refused_when_any_byte_is_changed(place: int, value: int) -> None:
    """Never another error: the scan of a folder goes on after a refusal."""
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError

    data = bytearray(_BYTES)
    data[place % len(data)] = value
    spec = Model_pb2.Model()
    try:
        spec.ParseFromString(bytes(data))
        with quiet():
            translated = network_graph(spec)
    except (DecodeError, TranslationRefused):
        return
    assert translated.graph.output


_BYTES = built(_small, {"x": (3,)}).spec.SerializeToString()


def test_file_runs_when_whole(tmp_path: Path) -> None:
    """The same network, from file to answer."""
    translation = translate(_saved(tmp_path), tmp_path / "out.onnx")
    assert translation.operators == {"activation": 1, "innerProduct": 1}
    answer = run(tmp_path / "out.onnx", {"x": np.array([1, 2, -9], np.float32)})[0]
    assert answer.tolist() == [0, 0]
