"""Side files: what they may say, and one clear sentence for everything else."""

from pathlib import Path

import pytest

from flows.catalog.side_file import SideFile, inside, read_side_file, side_file_of
from serving.core.errors import ArtifactRefused

WHOLE = """\
name: digits
model_type: classifier
description: |
  Reads digits.
author: A. Maker
owner: vision
team: ml
critical: true
training_dataset: UCI digits
metrics: {accuracy: 0.97, loss: 1}
params: {epochs: 25, lr: 1.0e-3, shuffled: true}
tags: {stage: trial}
evaluation_set: sets/digits.npz
example: rows.npz
labels: [0, 1, two]
dependencies: [scipy>=1.10]
licence: MIT
sibling: digits of spring
baseline: {accuracy: 0.96, latency_p50_ms: 1.5, throughput: 800, memory_mb: 12}
"""


def read(folder: Path, text: str) -> SideFile:
    path = folder / "digits.model.yaml"
    path.write_text(text)
    return read_side_file(path)


def test_every_key_is_read_when_the_file_says_it(tmp_path: Path) -> None:
    """All keys of the documentation, in their types; numbers as labels are text."""
    side = read(tmp_path, WHOLE)
    assert side.name == "digits"
    assert side.description == "Reads digits.\n"
    assert side.labels == ["0", "1", "two"]
    assert side.metrics == {"accuracy": 0.97, "loss": 1.0}
    assert side.params == {"epochs": 25, "lr": 0.001, "shuffled": True}
    assert side.baseline is not None
    assert side.baseline.throughput == 800
    assert set(side.as_json) == set(SideFile.model_fields)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"], ids=["empty", "comment", "document"])
def test_nothing_is_said_when_the_file_is_empty(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text).as_json == {}


def test_tags_may_be_a_list_when_they_have_no_values(tmp_path: Path) -> None:
    assert read(tmp_path, "tags: [small, quantised]\n").tags == {"small": "true", "quantised": "true"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nmae: digits\n", "line 1: unknown key 'nmae', did you mean 'name'? known are name, model_type"),
        ("name: a\ncolour: red\n", "line 2: unknown key 'colour'; known are"),
        ("name: [a]\n", "line 1: key 'name': input should be a valid string"),
        ("name: a/b\n", "'a/b' is no name for a model"),
        ("name: a:b\n", "'a:b' is no name for a model"),
        ("model_type: kitten\n", "key 'model_type': input should be 'classifier', 'predictor'"),
        ("author: x\nmetrics:\n  f1: 0.5\n  accuracy: high\n", "line 4: key 'metrics.accuracy'"),
        ("metrics: {accuracy: .nan}\n", "metric 'accuracy' is not a finite number"),
        ("metrics: {accuracy: true}\n", "key 'metrics.accuracy': input should be a valid number"),
        ("metrics: {'a=b': 1}\n", "line 1: key 'metrics.a=b'"),
        ("critical: maybe\n", "key 'critical': input should be a valid boolean"),
        ("critical: 1\n", "key 'critical': input should be a valid boolean"),
        ("tags: {signalbox.digest: x}\n", "tag 'signalbox.digest' begins with a name that is reserved"),
        ("tags: {mlflow.user: x}\n", "tag 'mlflow.user' begins with a name that is reserved"),
        ("labels: 5\n", "it must be a list of labels, or the path of a file"),
        ("labels: [[a]]\n", "key 'labels.0'"),
        ("evaluation_set: digits.csv\n", "'digits.csv' is no .npz file"),
        ("example: 1\n", "key 'example': input should be a valid string"),
        ("dependencies: scipy\n", "key 'dependencies': input should be a valid list"),
        ("baseline: {acuracy: 0.5}\n", "unknown key 'baseline.acuracy', did you mean 'accuracy'?"),
        ("baseline: {accuracy: 1.5}\n", "key 'baseline.accuracy': input should be less than or equal to 1"),
        ("name: a\nname: b\n", "line 2: key 'name' is there twice"),
        ("metrics: {a: 1, a: 2}\n", "line 1: key 'a' is there twice"),
        ("- name\n", "must hold keys with values"),
        ("digits\n", "must hold keys with values"),
        ("name: 'a\n", "is not readable YAML (found unexpected end of stream in line 2)"),
        ("name: a\n\tauthor: b\n", "is not readable YAML"),
        ("a: &x [1]\nb: *x\n", "uses YAML aliases"),
        ("name: !!python/object/apply:os.system [id]\n", "holds what a side file may not"),
        ("name: !custom a\n", "holds what a side file may not"),
        ("created: 2026-01-01\n", "unknown key 'created'"),
        ("1: x\n", "keys should be strings"),
        ("name: " + "x" * 300_000, "is larger than 256 KB"),
        ("name: \x00\n", "is not readable YAML"),
    ],
)
def test_file_is_refused_in_a_sentence_when_it_says_what_none_can(
    tmp_path: Path, text: str, said: str
) -> None:
    """Which file, which line, which key, and what to do."""
    with pytest.raises(ArtifactRefused) as refused:
        read(tmp_path, text)
    assert said in str(refused.value)
    assert "digits.model.yaml" in str(refused.value)
    assert "correct the side file" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_file_is_refused_when_it_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "digits.model.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ArtifactRefused, match="is not UTF-8 text"):
        read_side_file(path)


def test_own_side_file_outranks_the_shared_when_both_are_there(tmp_path: Path) -> None:
    """Four formats of one model share a side file, unless one of them has its own."""
    shared, own = tmp_path / "digits.model.yaml", tmp_path / "digits.onnx.model.yaml"
    shared.touch()
    assert side_file_of(tmp_path / "digits.onnx") == shared
    own.touch()
    assert side_file_of(tmp_path / "digits.onnx") == own
    assert side_file_of(tmp_path / "digits.pt") == shared
    assert side_file_of(tmp_path / "faces.pt") is None


def test_options_outrank_the_side_file_when_both_say_something(tmp_path: Path) -> None:
    side = read(tmp_path, "author: file\nowner: team\nmetrics: {a: 1}\n")
    merged = side.overlaid({"author": "option", "metrics": {"b": 2.0}, "owner": None, "params": {}})
    assert (merged.author, merged.owner, merged.metrics) == ("option", "team", {"b": 2.0})


def test_options_are_refused_when_they_say_what_none_can() -> None:
    with pytest.raises(ArtifactRefused, match="the options: key 'model_type'"):
        SideFile().overlaid({"model_type": "kitten"})


@pytest.mark.parametrize("relative", ["../outside.npz", "/etc/hostname", "link.npz", "sets"])
def test_named_file_is_refused_when_it_lies_outside(tmp_path: Path, relative: str) -> None:
    """Neither up, nor absolute, nor through a link, nor a folder."""
    folder = tmp_path / "models"
    (folder / "sets").mkdir(parents=True)
    (tmp_path / "outside.npz").touch()
    (folder / "link.npz").symlink_to(tmp_path / "outside.npz")
    with pytest.raises(ArtifactRefused, match="no file in the model's folder"):
        inside(folder / "a.model.yaml", relative, folder)


def test_named_file_is_refused_when_it_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefused, match=r"names 'gone.npz', which is not there"):
        inside(tmp_path / "a.model.yaml", "gone.npz", tmp_path)


def test_named_file_may_lie_beside_or_above_when_within_the_model_folder(tmp_path: Path) -> None:
    (tmp_path / "nested").mkdir()
    (tmp_path / "shared.npz").touch()
    found = inside(tmp_path / "nested" / "a.model.yaml", "../shared.npz", tmp_path)
    assert found == (tmp_path / "shared.npz").resolve()
