"""Files in, files out: edges of the translated graph, classifiers, images, dynamic dimensions, notes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from flows.translation.core_ml import Translation, translate
from tests.flows.translation.parity import quiet
from tests.flows.translation.programs import floats

with quiet():
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb


def _converted(module: nn.Module, example: torch.Tensor, **options: Any) -> Any:
    with quiet():
        traced = torch.jit.trace(module.eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
        given = {"inputs": [ct.TensorType(name="x", shape=example.shape)], **options}
        return ct.convert(traced, convert_to="mlprogram", **given)


def _translated(model: Any, folder: Path) -> tuple[Translation, onnxruntime.InferenceSession]:
    source, target = folder / "model.mlpackage", folder / "model.onnx"
    with quiet():
        model.save(str(source))
    return translate(source, target), onnxruntime.InferenceSession(target)


def _digits() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Softmax(-1))


@pytest.mark.parametrize("labels", [["cat", "dog", "owl"], [7, 8, 9]], ids=["texts", "numbers"])
def test_classifier_gives_label_and_probabilities_when_translated(labels: list[Any], tmp_path: Path) -> None:
    """Both outputs bear Core ML's names; the label is the likeliest class of each row."""
    module, x = _digits(), torch.randn(1, 3, 4)
    model = _converted(module, x, classifier_config=ct.ClassifierConfig(labels))
    translation, session = _translated(model, tmp_path)
    description = model.get_spec().description
    names = (description.predictedFeatureName, description.predictedProbabilitiesName)
    label, probabilities = session.run(list(names), {"x": x.numpy()})
    wanted = module(x).detach().numpy()
    assert set(translation.outputs) == set(names)
    assert label.tolist() == [labels[int(wanted.argmax())]]
    np.testing.assert_allclose(probabilities, wanted, rtol=1e-2)


def test_image_becomes_an_array_of_pixels_when_translated(tmp_path: Path) -> None:
    """The input is float32 (1, C, H, W) from 0 to 255, scaled by the program itself; a note says so."""
    torch.manual_seed(2)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    image = ct.ImageType(name="photo", shape=(1, 3, 8, 8), scale=1 / 127.5, bias=[-1, -1, -1])
    translation, session = _translated(_converted(module, torch.randn(1, 3, 8, 8), inputs=[image]), tmp_path)
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("photo", "tensor(float)", [1, 3, 8, 8])
    assert any("'photo'" in note and "0 to 255" in note for note in translation.notes)
    pixels = torch.randint(0, 256, (1, 3, 8, 8)).float()
    wanted = module(pixels / 127.5 - 1).detach().numpy()
    np.testing.assert_allclose(session.run(None, {"photo": pixels.numpy()})[0], wanted, atol=1e-2)


def test_image_leaves_as_an_array_when_translated(tmp_path: Path) -> None:
    """The values are pixels as the program computes them; a note says so."""
    picture = ct.ImageType(name="picture", color_layout=ct.colorlayout.RGB)
    model = _converted(nn.ReLU(), torch.randn(1, 3, 4, 4), outputs=[picture])
    translation, session = _translated(model, tmp_path)
    assert any("'picture'" in note for note in translation.notes)
    pixels = torch.randint(0, 256, (1, 3, 4, 4)).float().numpy()
    np.testing.assert_array_equal(session.run(["picture"], {"x": pixels})[0], pixels)


def test_edges_keep_their_types_when_a_program_is_in_half_precision(tmp_path: Path) -> None:
    """fp16 inputs and outputs stay fp16; the report says what precision means here."""
    module, x = _digits(), torch.randn(1, 3, 4)
    model = _converted(
        module,
        x,
        inputs=[ct.TensorType(name="x", shape=x.shape, dtype=np.float16)],
        outputs=[ct.TensorType(name="y", dtype=np.float16)],
        minimum_deployment_target=ct.target.iOS16,
    )
    translation, session = _translated(model, tmp_path)
    assert [one.type for one in (*session.get_inputs(), *session.get_outputs())] == ["tensor(float16)"] * 2
    assert translation.precision == "fp16"
    assert any("fp16" in note for note in translation.notes)
    (given,) = session.run(None, {"x": x.numpy().astype(np.float16)})
    np.testing.assert_allclose(given, module(x).detach().numpy(), rtol=1e-2)


def test_weights_stay_half_as_large_when_stored_in_half_precision(tmp_path: Path) -> None:
    """The file of the fp16 program is little more than half of the fp32 program's."""
    sizes = {}
    for precision in (ct.precision.FLOAT32, ct.precision.FLOAT16):
        folder = tmp_path / precision.name
        folder.mkdir()
        module = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 64))
        _translated(_converted(module, torch.randn(1, 256), compute_precision=precision), folder)
        sizes[precision.name] = (folder / "model.onnx").stat().st_size
    assert sizes["FLOAT16"] < 0.55 * sizes["FLOAT32"]


def test_dimensions_stay_dynamic_when_shapes_are_flexible(tmp_path: Path) -> None:
    """A range or a list of shapes leaves a named dimension; an output that keeps it has the same name."""
    module = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU())
    shapes = ct.EnumeratedShapes(shapes=[[1, 3, 8, 8], [1, 3, 8, 16]], default=[1, 3, 8, 8])
    model = _converted(module, torch.randn(1, 3, 8, 8), inputs=[ct.TensorType(name="x", shape=shapes)])
    _, session = _translated(model, tmp_path)
    assert session.get_inputs()[0].shape == [1, 3, 8, "x_dim_3"]
    for width in (8, 16):
        assert session.run(None, {"x": np.zeros((1, 3, 8, width), np.float32)})[0].shape == (1, 2, 8, width)


def test_output_carries_its_inputs_dimension_name_when_it_keeps_it(tmp_path: Path) -> None:
    """A reader sees that the batch of the answer is the batch of the question."""
    shape = ct.Shape([ct.RangeDim(1, 32), 4])
    model = _converted(nn.Linear(4, 2), torch.randn(3, 4), inputs=[ct.TensorType(name="x", shape=shape)])
    _, session = _translated(model, tmp_path)
    assert session.get_outputs()[0].shape == [session.get_inputs()[0].shape[0], 2]


def test_single_file_is_translated_when_it_holds_a_program(tmp_path: Path) -> None:
    """A .mlmodel file without a weights folder works as long as its values lie in the program."""

    @mb.program(input_specs=[mb.TensorSpec(shape=(2, 3))])  # type: ignore[untyped-decorator]
    def program(x: Any) -> Any:
        return mb.relu(x=mb.mul(x=x, y=np.float32(2)), name="y")

    with quiet():
        model = ct.convert(program, convert_to="mlprogram", compute_precision=ct.precision.FLOAT32)
        source = tmp_path / "tiny.mlmodel"
        source.write_bytes(model.get_spec().SerializeToString())
    translation = translate(source, tmp_path / "tiny.onnx")
    x = floats([[1, -2, 3], [-4, 5, -6]])
    (given,) = onnxruntime.InferenceSession(tmp_path / "tiny.onnx").run(None, {"x": x})
    assert translation.operators == {"mul": 1, "relu": 1}
    np.testing.assert_array_equal(given, np.maximum(x * 2, 0))


def test_file_passes_the_checker_in_full_when_written(tmp_path: Path) -> None:
    """Shapes and types are inferred through the whole graph; the target is replaced, never half written."""
    target = tmp_path / "model.onnx"
    target.write_bytes(b"an older translation")
    translation, _ = _translated(_converted(_digits(), torch.randn(1, 3, 4)), tmp_path)
    proto = onnx.load(target)
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.opset_import[0].version, translation.opset) == (20, 20)
    assert [one.name for one in proto.graph.output] == list(translation.outputs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.mlpackage", "model.onnx"]


def test_tied_weights_are_stored_once_when_translated(tmp_path: Path) -> None:
    """Two layers with one matrix do not double the file."""
    weight = np.ones((64, 64), np.float32)

    @mb.program(input_specs=[mb.TensorSpec(shape=(2, 5, 64))])  # type: ignore[untyped-decorator]
    def program(x: Any) -> Any:
        tied = mb.const(val=weight, name="tied")
        return mb.linear(x=mb.linear(x=x, weight=tied), weight=tied)

    with quiet():
        model = ct.convert(program, convert_to="mlprogram", compute_precision=ct.precision.FLOAT32)
    _translated(model, tmp_path)
    assert (tmp_path / "model.onnx").stat().st_size < 1.5 * weight.nbytes


def test_output_is_declared_once_when_two_answers_are_equal(tmp_path: Path) -> None:
    """coremltools merges equal computations, and then lists the one variable twice."""

    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x * 2, x * 2

    x = torch.randn(2, 3).half()
    model = _converted(Twice(), x.float(), minimum_deployment_target=ct.target.iOS16)
    translation, session = _translated(model, tmp_path)
    assert len(translation.outputs) == 1
    np.testing.assert_array_equal(session.run(None, {"x": x.numpy()})[0], x.numpy() * 2)
