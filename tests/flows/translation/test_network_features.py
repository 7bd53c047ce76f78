"""Inputs and outputs of layer networks: images, five axes, classes, types, defaults, open shapes."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from flows.translation.network import network_graph
from serving.core.datatypes import Array
from tests.flows.translation.network_models import Built, built, run
from tests.flows.translation.network_parity import converted
from tests.flows.translation.parity import Case, quiet

_RNG = np.random.default_rng(10)
_IMAGE = _RNG.uniform(0, 255, (1, 3, 6, 5)).astype(np.float32)


def _shapes(values: Any) -> dict[str, list[int | str]]:
    return {
        one.name: [dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim] for one in values
    }


def _identity(builder: Any) -> None:
    builder.add_activation("a", "LINEAR", "x", "y", [2.0, 0.0])


def _convolution(**options: Any) -> Any:
    case = Case("c", "cnn", lambda: nn.Conv2d(3, 2, 3), (torch.from_numpy(_IMAGE),))
    return converted(case, **options)


@pytest.mark.parametrize("colours", ["RGB", "BGR"])
def test_image_is_scaled_and_shifted_when_the_network_says_so(colours: str) -> None:
    """Biases belong to colours, so their order follows the image's."""
    import coremltools as ct

    layout = ct.colorlayout.RGB if colours == "RGB" else ct.colorlayout.BGR
    with quiet():
        image = ct.ImageType(
            name="x0", shape=_IMAGE.shape, scale=0.5, bias=[0.1, 0.2, 0.3], color_layout=layout
        )
    module, model = _convolution(inputs=[image])
    translated = network_graph(model)
    answer = run(translated, {"x0": _IMAGE})[0]
    prepared = _IMAGE * 0.5 + np.array([0.1, 0.2, 0.3], np.float32).reshape(1, 3, 1, 1)
    with torch.no_grad():
        expected = module(torch.from_numpy(prepared)).numpy()
    np.testing.assert_allclose(answer, expected, atol=1e-4)
    assert translated.graph.input[0].doc_string.startswith(f"{colours} image")


def _grey_network(sizes: tuple[int, int] = (6, 5)) -> Built:
    """A network that doubles a grey image of the first versions."""
    network = built(_identity, {"x": (1, *sizes)}, exact=False)
    with quiet():
        from coremltools.proto import FeatureTypes_pb2

        declared = network.spec.description.input[0].type
        declared.imageType.height, declared.imageType.width = sizes
        declared.imageType.colorSpace = FeatureTypes_pb2.ImageFeatureType.GRAYSCALE
    return network


def test_mean_image_is_subtracted_when_stored() -> None:
    """It applies to the only image when it names none."""
    network = _grey_network()
    mean = np.arange(30, dtype=np.float32)
    network.spec.neuralNetwork.preprocessing.add().meanImage.meanImage.extend(mean)
    answer = network.run(x=_IMAGE[:, :1])[0]
    np.testing.assert_allclose(answer, 2 * (_IMAGE[0, :1] - mean.reshape(1, 6, 5)), atol=1e-4)


def test_grey_image_gets_its_own_bias_when_scaled() -> None:
    """A scale that was never set is 1."""
    network = _grey_network()
    network.spec.neuralNetwork.preprocessing.add().scaler.grayBias = -3.0
    np.testing.assert_allclose(network.run(x=_IMAGE[:, :1])[0], 2 * (_IMAGE[0, :1] - 3), atol=1e-4)


def test_image_output_is_an_array_when_declared_as_image() -> None:
    """With the batch axis that image inputs have."""
    network = _grey_network()
    network.spec.description.output[0].type.CopyFrom(network.spec.description.input[0].type)
    answer = network.run(x=_IMAGE[:, :1])[0]
    assert answer.shape == (1, 1, 6, 5)


@pytest.mark.parametrize("shape", [(4,), (4, 3, 2)])
def test_network_of_five_axes_shows_declared_shapes_when_of_the_first_versions(
    shape: tuple[int, ...],
) -> None:
    """Inputs gain the axes and outputs lose them."""
    x = _RNG.standard_normal(shape).astype(np.float32)
    network = built(_identity, {"x": shape}, exact=False)
    np.testing.assert_allclose(network.run(x=x)[0], 2 * x)


def test_network_of_five_axes_runs_its_layers_when_of_the_first_versions() -> None:
    """A small classic: convolution, activation, pooling, flattening, inner product, softmax."""
    x = _RNG.standard_normal((3, 8, 8)).astype(np.float32)
    kernel = _RNG.standard_normal((4, 3, 3, 3)).astype(np.float32)
    weights = _RNG.standard_normal((5, 36)).astype(np.float32)

    def add(builder: Any) -> None:
        builder.add_convolution(
            "c",
            3,
            4,
            3,
            3,
            1,
            1,
            "valid",
            1,
            kernel.transpose(2, 3, 1, 0),
            None,
            False,
            input_name="x",
            output_name="c",
        )
        builder.add_activation("a", "RELU", "c", "a")
        builder.add_pooling("p", 2, 2, 2, 2, "MAX", "VALID", "a", "p")
        builder.add_flatten("f", 0, "p", "f")
        builder.add_inner_product("i", weights, None, 36, 5, False, "f", "i")
        builder.add_softmax("s", "i", "y")

    answer = built(add, {"x": x.shape}, exact=False).run(x=x)[0]
    features = nn.functional.max_pool2d(
        nn.functional.relu(nn.functional.conv2d(torch.from_numpy(x)[None], torch.from_numpy(kernel))), 2
    )
    scores = torch.softmax(features.reshape(36) @ torch.from_numpy(weights).T, 0)
    np.testing.assert_allclose(answer, scores.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("add", "expected"),
    [
        (lambda b: b.add_reshape("r", "x", "y", (2, 3, 4), 0), lambda x: x.reshape(2, 3, 4)),
        (
            lambda b: b.add_reshape("r", "x", "y", (2, 3, 4), 1),
            lambda x: x.transpose(1, 2, 0).reshape(3, 4, 2).transpose(2, 0, 1),
        ),
        (lambda b: b.add_reshape("r", "x", "y", (2, 2, 3, 2), 0), lambda x: x.reshape(2, 1, 2, 3, 2)),
        (
            lambda b: b.add_reshape("r", "x", "y", (2, 2, 3, 2), 1),
            lambda x: x.transpose(1, 2, 0).reshape(2, 1, 3, 2, 2).transpose(0, 1, 4, 2, 3),
        ),
        (lambda b: b.add_permute("p", (0, 3, 1, 2), "x", "y"), lambda x: x.transpose(2, 0, 1)),
        (
            lambda b: b.add_permute("p", (3, 1, 2, 0), "x", "y"),
            lambda x: x.transpose(2, 0, 1)[:, None, :, :, None],
        ),
        (lambda b: b.add_sequence_repeat("s", 3, "x", "y"), lambda x: np.stack([x] * 3)[:, None]),
        (lambda b: b.add_elementwise("c", ["x", "x"], "y", "CONCAT"), lambda x: np.concatenate([x, x])),
        (lambda b: b.add_sequence_concat("x", "y"), lambda x: np.stack([x, x])[:, None]),
    ],
)
def test_layer_of_the_first_versions_moves_elements_when_on_five_axes(add: Any, expected: Any) -> None:
    """A sequence that is longer than 1 shows, and with it the batch."""
    x = _RNG.standard_normal((4, 2, 3)).astype(np.float32)

    def added(builder: Any) -> None:
        if not hasattr(builder, "add_sequence_concat"):
            builder.add_sequence_concat = lambda source, target: builder.add_elementwise(
                "c", [source, source], target, "SEQUENCE_CONCAT"
            )
        add(builder)

    np.testing.assert_array_equal(built(added, {"x": x.shape}, exact=False).run(x=x)[0], expected(x))


def test_sequence_network_takes_sequences_when_its_input_is_one_step() -> None:
    """An input declared (C,) takes (sequence, batch, C), any number of both, as Core ML does."""
    weights = _RNG.standard_normal((3, 4, 4)).astype(np.float32)
    network = built(
        lambda b: b.add_gru("g", weights, weights, None, 4, 4, ["x"], ["y"], output_all=True),
        {"x": (4,)},
        exact=False,
    )
    translated = network_graph(network.spec)
    assert _shapes(translated.graph.input) == {"x": ["sequence", "batch", 4]}
    x = _RNG.standard_normal((6, 3, 4)).astype(np.float32)
    together = run(translated, {"x": x})[0]
    assert together.shape == (6, 3, 4)
    alone = np.concatenate([run(translated, {"x": x[:, at : at + 1]})[0] for at in range(3)], 1)
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_states_keep_their_shape_when_a_sequence_network_takes_them() -> None:
    """One sequence at a time, as its states are declared; left out, an optional state is zeros."""
    weights = _RNG.standard_normal((4, 4, 4)).astype(np.float32) * 0.3
    names = ["y", "h", "c"]
    network = built(
        lambda b: b.add_unilstm("l", weights, weights, None, 4, 4, ["x", "s0", "s1"], names, output_all=True),
        {"x": (4,), "s0": (4,), "s1": (4,)},
        names,
        exact=False,
    )
    with quiet():
        for declared in network.spec.description.input[1:]:
            declared.type.isOptional = True
    translated = network_graph(network.spec)
    assert _shapes(translated.graph.input) == {"x": ["sequence", 1, 4], "s0": [4], "s1": [4]}
    x = _RNG.standard_normal((5, 1, 4)).astype(np.float32)
    whole, *_ = run(translated, {"x": x})
    _, h, c = run(translated, {"x": x[:2]})
    rest, *_ = run(translated, {"x": x[2:], "s0": h, "s1": c})
    assert h.shape == (4,)
    np.testing.assert_allclose(whole[2:], rest, atol=1e-6)


@pytest.mark.parametrize(("labels", "dtype"), [(["cat", "dog", "eel"], object), ([7, -1, 40], np.int64)])
@pytest.mark.parametrize("mode", ["neuralnetwork", "five axes"])
def test_classifier_names_the_likeliest_class_when_translated(
    labels: list[Any], dtype: Any, mode: str
) -> None:
    """Under Core ML's two names: the label, and the probabilities in the order of the labels."""
    weights = _RNG.standard_normal((3, 4)).astype(np.float32)

    def add(builder: Any) -> None:
        builder.add_inner_product("i", weights, None, 4, 3, False, "x", "i")
        if mode == "five axes":
            builder.add_softmax("s", "i", "y")
        else:
            builder.add_softmax_nd("s", "i", "y", -1)
        builder.set_class_labels(labels, "animal", "y")

    exact = mode != "five axes"
    network = built(add, {"x": (4,)}, exact=exact, mode="classifier")
    x = _RNG.standard_normal(4).astype(np.float32)
    translated = network_graph(network.spec)
    names = [one.name for one in translated.graph.output]
    answers = dict(zip(names, run(translated, {"x": x}), strict=True))
    scores = np.exp(weights @ x) / np.exp(weights @ x).sum()
    probabilities = network.spec.description.predictedProbabilitiesName
    np.testing.assert_allclose(answers[probabilities], scores, atol=1e-5)
    assert answers["animal"].dtype == dtype
    assert answers["animal"].tolist() == [labels[int(scores.argmax())]]
    assert sorted(names) == sorted(["animal", probabilities])


def test_classifier_labels_every_row_when_converted_with_a_batch() -> None:
    """A classifier of coremltools' converter, whose probabilities have a leading axis."""
    import coremltools as ct

    case = Case("c", "mlp", lambda: nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)), (torch.randn(2, 4),))
    module, model = converted(case, classifier_config=ct.ClassifierConfig(["a", "b", "c"]))
    x = _RNG.standard_normal((2, 4)).astype(np.float32)
    translated = network_graph(model)
    outputs = dict(
        zip((one.name for one in translated.graph.output), run(translated, {"x0": x}), strict=True)
    )
    with torch.no_grad():
        scores = module(torch.from_numpy(x)).numpy()
    assert outputs["classLabel"].tolist() == [["a", "b", "c"][at] for at in scores.argmax(-1)]
    probabilities = outputs[model.get_spec().description.predictedProbabilitiesName]
    np.testing.assert_allclose(probabilities, scores, atol=1e-6)


@pytest.mark.parametrize(
    ("element", "dtype"), [("DOUBLE", np.float64), ("FLOAT32", np.float32), ("INT32", np.int32)]
)
def test_arrays_keep_their_element_type_when_declared(element: str, dtype: Any) -> None:
    """Both ways; inside everything is float32."""
    network = built(_identity, {"x": (3,)})
    with quiet():
        from coremltools.proto import FeatureTypes_pb2

        number = FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.Value(element)
    for declared in (network.spec.description.input[0], network.spec.description.output[0]):
        declared.type.multiArrayType.dataType = number
    answer = network.run(x=np.array([1, 2, 3], dtype))[0]
    assert answer.dtype == dtype
    assert answer.tolist() == [2, 4, 6]


def test_open_sizes_stay_open_when_declared_as_range_or_choice() -> None:
    """Fixed sizes stay fixed beside them."""
    network = built(_identity, {"x": (2, 3, 4)})
    ranges = network.spec.description.input[0].type.multiArrayType.shapeRange.sizeRanges
    for low, high in ((1, -1), (3, 3), (2, 8)):
        ranges.add(lowerBound=low, upperBound=high)
    assert _shapes(network_graph(network.spec).graph.input) == {"x": ["x_0", 3, "x_2"]}
    chosen = built(_identity, {"x": (2, 3, 4)})
    shapes = chosen.spec.description.input[0].type.multiArrayType.enumeratedShapes.shapes
    for size in (4, 5):
        shapes.add().shape.extend([2, 3, size])
    translated = network_graph(chosen.spec)
    assert _shapes(translated.graph.input) == {"x": [2, 3, "x_2"]}
    onnx.checker.check_model(translated, full_check=True)


def test_open_images_run_at_any_size_when_declared_as_range() -> None:
    """Through convolution and pooling."""
    import coremltools as ct

    with quiet():
        image = ct.ImageType(name="x0", shape=ct.Shape((1, 3, ct.RangeDim(4, 64), ct.RangeDim(4, 64))))
    module, model = _convolution(inputs=[image])
    translated = network_graph(model)
    for sizes in ((6, 5), (17, 9)):
        x = _RNG.uniform(0, 255, (1, 3, *sizes)).astype(np.float32)
        with torch.no_grad():
            expected = module(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(run(translated, {"x0": x})[0], expected, rtol=1e-5, atol=1e-3)


def test_result_keeps_nothing_unused_when_translated() -> None:
    """A layer that no output depends on leaves neither nodes nor weights behind."""

    def add(builder: Any) -> None:
        _identity(builder)
        unused: Array = np.ones((5, 3), np.float32)
        builder.add_inner_product("i", unused, None, 3, 5, False, "x", "unused")

    translated = network_graph(built(add, {"x": (3,)}).spec)
    assert [node.op_type for node in translated.graph.node] == ["Mul", "Identity"]
    assert len(translated.graph.initializer) == 1
