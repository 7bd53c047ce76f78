"""A description in MLflow: within its limits, readable, and nothing foreign becomes markup."""

from dataclasses import replace

import pytest

from flows.catalog.description import Description, Tensor
from flows.catalog.presentation import MAX_PAGE, page, run_metrics, run_params, shape, size, version_tags
from serving.formats.outline import Layer
from serving.formats.told import Told

NET = Description(
    format="onnx",
    file_name="model.onnx",
    size_bytes=3508,
    architecture="5 layers: Conv 1, Gemm 1; 690 parameters",
    inputs=(Tensor("x", "FP32", ("batch", 1, 8, -1)),),
    outputs=(Tensor("y", "FP32", None),),
    operators={"Conv": 1, "Gemm": 1},
    parameter_count=690,
    layer_count=5,
    layers=(Layer("stroke", "Conv", 40), Layer("active", "Relu"), Layer("head", "Gemm", 650)),
    opsets={"ai.onnx": 17},
    versions={"ir": "9"},
    producer="pytorch",
    producer_version="2.13",
    runtimes={"onnxruntime": ">=1.15"},
    told=Told(
        description="Reads digits.\n\nNot for cheques.",
        author="Ann",
        licence="MIT",
        training_dataset="UCI digits",
        labels=("zero", "one"),
        metrics={"accuracy": 0.9756, "top 5 (%)": 99.0},
    ),
)
BARE = Description(
    format="coreml",
    file_name="model.mlmodel",
    size_bytes=12,
    architecture="unknown",
    inputs=(),
    outputs=(),
    notes=("the inside of 'model.mlmodel' could not be read (DecodeError)",),
)


def test_tags_hold_what_is_known_when_described() -> None:
    """A fact that is not known has no tag."""
    assert version_tags(NET) == {
        "signalbox.format": "onnx",
        "signalbox.architecture": "5 layers: Conv 1, Gemm 1; 690 parameters",
        "signalbox.size_bytes": "3508",
        "signalbox.parameters": "690",
        "signalbox.producer": "pytorch 2.13",
        "signalbox.requires": "onnxruntime >=1.15",
        "signalbox.labels": "zero, one",
        "signalbox.author": "Ann",
        "signalbox.licence": "MIT",
        "signalbox.training_dataset": "UCI digits",
    }
    assert set(version_tags(BARE)) == {"signalbox.format", "signalbox.architecture", "signalbox.size_bytes"}


def test_params_and_metrics_have_names_that_mlflow_takes() -> None:
    """What it would refuse in a name is an underscore."""
    assert run_params(NET)["opset ai.onnx"] == "17"
    assert run_params(NET)["parameter_count"] == "690"
    assert run_metrics(NET) == {"accuracy": 0.9756, "top 5 ___": 99.0}
    assert run_params(BARE)["layer_count"] == "0"


def test_page_tells_everything_when_described() -> None:
    """Prose, facts, tensors, metrics, labels, layers with weights."""
    lines = page(NET).splitlines()
    assert lines[:3] == ["Reads digits.", "", "Not for cheques."]
    assert "- **Format**: ONNX, opset 17 of ai.onnx, IR version 9" in lines
    assert "- **Size**: 3.5 kB" in lines
    assert "- **Needs**: onnxruntime >=1.15" in lines
    assert "- **input x**: FP32, batch × 1 × 8 × ?" in lines
    assert "- **output y**: FP32, unknown" in lines
    assert "- **accuracy**: 0.9756" in lines
    assert "**Labels** (2): zero, one" in lines
    assert "- **head**: Gemm, 650 parameters" in lines
    assert "active" not in page(NET)


def test_page_says_so_when_a_file_could_not_be_read() -> None:
    assert "*the inside of 'model.mlmodel' could not be read (DecodeError)*" in page(BARE)


def test_page_ends_with_an_ellipsis_when_there_is_too_much_to_tell() -> None:
    """The database takes 5000 characters, and a verdict is written below the page later."""
    layers = tuple(Layer("layer " * 60, "Conv", 9) for _ in range(20))
    told = Told(description="long " * 1000, labels=tuple(str(n) for n in range(1000)))
    long = replace(NET, told=told, layers=layers)
    assert len(page(long)) <= MAX_PAGE + len("\n\n…")
    assert page(long).endswith("\n\n…")
    assert "… (1000 in all)" in page(long)
    assert all(len(value) <= 500 for value in (*version_tags(long).values(), *run_params(long).values()))


def test_page_keeps_foreign_text_text_when_it_looks_like_markup() -> None:
    """No element of HTML, no code, no end of a line's list; our own mark is not for others."""
    told = Told(author="<script>alert(1)</script>", description="`code` <b>\n- item\n\nSignalbox: promoted")
    text = page(replace(NET, told=told))
    assert "<" not in text
    assert "`" not in text
    assert "Signalbox:" not in text
    assert "- **Author**: &lt;script>alert(1)&lt;/script>" in text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2_500_000, "2.5 MB"), (7 * 10**9, "7.0 GB")],
)
def test_size_is_told_in_the_unit_that_fits(size_bytes: int, text: str) -> None:
    assert size(size_bytes) == text


def test_shape_is_scalar_when_there_are_no_axes() -> None:
    assert shape(Tensor("x", "FP32", ())) == "scalar"
