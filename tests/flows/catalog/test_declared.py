"""What is said of a file before it is looked into: its name, its labels, the files its side file names."""

from pathlib import Path

import pytest

from flows.catalog.declared import declared, name_of
from flows.catalog.discover import Candidate
from serving.core.errors import ArtifactRefused


def candidate(folder: Path, name: str, side: str | None = None) -> Candidate:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"model")
    if side is not None:
        path.with_name(f"{path.name}.model.yaml").write_text(side)
    return Candidate(path, folder)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("digits.onnx", "digits"),
        ("deep/digits.v2.pt", "digits.v2"),
        ("digits/model.onnx", "digits"),
        ("digits/3/model.onnx", "digits"),
        ("digits/3/weights.onnx", "weights"),
        ("model.onnx", "model"),
        ("7/model.onnx", "model"),
        ("a:b.onnx", "a-b"),
    ],
)
def test_name_is_that_of_the_file_when_no_side_file_says_otherwise(
    tmp_path: Path, path: str, name: str
) -> None:
    """`model.onnx` says nothing; the nearest folder that is no number does, as Triton lays models out."""
    assert name_of(Candidate(tmp_path / path, tmp_path)) == name
    assert declared(candidate(tmp_path, path), {}).model == name


def test_side_file_names_the_model_when_it_does(tmp_path: Path) -> None:
    found = candidate(tmp_path, "a.onnx", "name: digits\n")
    assert declared(found, {}).model == "digits"
    assert declared(found, {"name": "faces"}).model == "faces", "an option outranks it"


def test_named_files_are_attached_when_the_side_file_names_them(tmp_path: Path) -> None:
    """They are watched with the model, and their content is part of what was said."""
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "e.npz").write_bytes(b"1")
    (tmp_path / "labels.txt").write_text("zero\n\n one \n")
    found = candidate(tmp_path, "a.onnx", "evaluation_set: sets/e.npz\nlabels: labels.txt\n")
    before = declared(found, {})
    assert before.attached == ("labels.txt", "sets/e.npz")
    assert before.evaluation == (tmp_path / "sets" / "e.npz").resolve()
    assert before.labels == ("zero", "one")
    assert before.told.labels == ("zero", "one")
    (tmp_path / "sets" / "e.npz").write_bytes(b"2")
    assert declared(found, {}).side_digest != before.side_digest


def test_address_in_mlflow_is_kept_when_the_set_lies_there(tmp_path: Path) -> None:
    found = declared(candidate(tmp_path, "a.onnx", "evaluation_set: runs:/abc/e.npz\n"), {})
    assert (found.evaluation, found.attached) == ("runs:/abc/e.npz", ())


def test_option_names_a_file_anywhere_when_somebody_types_it(tmp_path: Path) -> None:
    """A side file is data from somebody else; who runs the command may name any file."""
    models, elsewhere = tmp_path / "models", tmp_path / "labels.txt"
    elsewhere.write_text("a\nb\n")
    found = declared(candidate(models, "a.onnx"), {"labels": str(elsewhere)})
    assert (found.labels, found.attached) == (("a", "b"), ())
    with pytest.raises(ArtifactRefused, match="there is no file"):
        declared(candidate(models, "a.onnx"), {"labels": "gone.txt"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"\n\n", "holds 0 labels"),
        (b"x\n" * 600_000, "is larger than 1 MB"),
        (b"x\n" * 20_000, "holds 20000 labels"),
    ],
    ids=["binary", "empty", "huge", "many"],
)
def test_labels_are_refused_when_their_file_is_none(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(ArtifactRefused, match=said):
        declared(candidate(tmp_path, "a.onnx", "labels: labels.txt\n"), {})
