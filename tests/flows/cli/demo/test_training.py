"""Reading what the example's training script says."""

from flows.cli.demo.training import registered

OUTPUT = """\
Registered model 'digits' already exists. Creating a new version of this model...
digits version 1  torchscript  accuracy 0.6822        epochs: 1
🏃 View run digits, epochs: 25 at: http://127.0.0.1:5000/#/experiments/1/runs/abc
digits version 2  onnx         accuracy 0.9844        epochs: 25
"""


def test_versions_are_found_when_libraries_print_in_between() -> None:
    """The script's own lines, by version, without the model's name."""
    assert registered(OUTPUT) == {
        "1": "version 1  torchscript  accuracy 0.6822        epochs: 1",
        "2": "version 2  onnx         accuracy 0.9844        epochs: 25",
    }
    assert registered("Traceback (most recent call last):") == {}
