"""Which files of a folder are models, by name or by content, and what makes each of them known again."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.catalog.discover import Candidate, data_files, fingerprint, look_through, source_digest
from tests.models import onnx_adder, torch_adder


def found(*folders: Path) -> list[str]:
    """Paths of the candidates, relative to the first folder."""
    return [os.path.relpath(one.path, folders[0]) for one in look_through(folders).candidates]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"model")


def test_models_are_found_by_name_when_nested(tmp_path: Path) -> None:
    """Every suffix, in any case, at any depth, in the order of paths; a package is one model."""
    touch(tmp_path, "b.pt", "a.onnx", "deep/down/c.PT2", "d.mlmodel", "e.pth", "f.torchscript")
    touch(tmp_path, "g.mlpackage/Manifest.json", "g.mlpackage/Data/com.apple.CoreML/model.mlmodel")
    assert found(tmp_path) == [
        "a.onnx",
        "b.pt",
        "d.mlmodel",
        "deep/down/c.PT2",
        "e.pth",
        "f.torchscript",
        "g.mlpackage",
    ]


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.onnx",
        ".folder/a.onnx",
        "a.onnx.tmp",
        "a.onnx.part",
        "a.onnx.crdownload",
        "a.onnx~",
        ".a.onnx.swp",
        "#a.onnx#",
        "~$a.onnx",
        "a.model.yaml",
        "a.onnx.data",
        "README.md",
        "set.npz",
    ],
)
def test_file_is_passed_over_when_it_is_no_model_yet_or_never(tmp_path: Path, name: str) -> None:
    """Hidden, temporary, half-downloaded, and what lies beside models."""
    touch(tmp_path, name)
    assert found(tmp_path) == []


def test_archive_is_found_by_content_when_it_has_no_name_of_a_model(tmp_path: Path) -> None:
    """A TorchScript archive called something else is one; other archives and text are not."""
    script = torch_adder(tmp_path / "made") / "model.pt"
    (tmp_path / "models").mkdir()
    shutil.copy(script, tmp_path / "models" / "weights.bin")
    shutil.copy(script, tmp_path / "models" / "without")
    shutil.make_archive(str(tmp_path / "models" / "other"), "zip", tmp_path / "made")
    (tmp_path / "models" / "other.zip").rename(tmp_path / "models" / "other.archive")
    assert found(tmp_path / "models") == ["weights.bin", "without"]


def test_link_is_followed_when_it_stays_inside(tmp_path: Path) -> None:
    """A link to a model that is found anyway is no second one; a link to a hidden one is the model."""
    touch(tmp_path, "a.onnx", "..data/b.onnx")
    (tmp_path / "latest.onnx").symlink_to("a.onnx")
    (tmp_path / "b.onnx").symlink_to("..data/b.onnx")
    assert found(tmp_path) == ["a.onnx", "b.onnx"]


def test_link_is_told_of_when_it_leads_out(tmp_path: Path) -> None:
    """Nothing behind it is looked at, be it a file, a folder or nothing at all."""
    models, outside = tmp_path / "models", tmp_path / "outside"
    touch(outside, "secret.onnx")
    models.mkdir()
    (models / "file.onnx").symlink_to(outside / "secret.onnx")
    (models / "folder").symlink_to(outside)
    (models / "broken.onnx").symlink_to("gone")
    (models / "loop").symlink_to(models)
    listing = look_through([models])
    assert listing.candidates == ()
    assert [(stray.path.name, stray.reason) for stray in listing.strays] == [
        ("broken.onnx", "the link 'broken.onnx' leads nowhere"),
        ("file.onnx", "the link 'file.onnx' leads out of the model folder"),
        ("folder", "the link 'folder' leads out of the model folder"),
    ]


def test_folder_is_told_of_when_it_is_missing(tmp_path: Path) -> None:
    """The others are looked through all the same, and a folder named twice counts once."""
    touch(tmp_path, "here/a.onnx")
    listing = look_through([tmp_path / "gone", tmp_path / "here", tmp_path / "here"])
    assert listing.missing == (tmp_path / "gone",)
    assert [one.path.name for one in listing.candidates] == ["a.onnx"]


def stamped(path: Path, *members: str) -> str:
    return fingerprint(Candidate(path, path.parent), members)


def test_fingerprint_stays_when_nothing_changes(tmp_path: Path) -> None:
    touch(tmp_path, "a.onnx", "a.onnx.data", "a.model.yaml")
    path = tmp_path / "a.onnx"
    assert stamped(path, "a.onnx.data") == stamped(path, "a.onnx.data")


@pytest.mark.parametrize("name", ["a.onnx", "a.onnx.data", "a.model.yaml"])
def test_fingerprint_changes_when_a_file_of_the_model_does(tmp_path: Path, name: str) -> None:
    """Longer, later, replaced, or gone: the model, its weights, its side file."""
    touch(tmp_path, "a.onnx", "a.onnx.data", "a.model.yaml")
    path, part = tmp_path / "a.onnx", tmp_path / name
    seen = [stamped(path, "a.onnx.data")]
    part.write_bytes(b"longer than before")
    seen.append(stamped(path, "a.onnx.data"))
    os.utime(part, ns=(1, 1))
    seen.append(stamped(path, "a.onnx.data"))
    part.with_suffix(".new").write_bytes(part.read_bytes())
    os.utime(part.with_suffix(".new"), ns=(1, 1))
    part.with_suffix(".new").replace(part)
    seen.append(stamped(path, "a.onnx.data"))
    if name != "a.onnx":
        part.unlink()
        seen.append(stamped(path, "a.onnx.data"))
    assert len(set(seen)) == len(seen)


def test_fingerprint_changes_when_a_member_arrives(tmp_path: Path) -> None:
    """A weight file that was missing when the model was refused is a reason to look again."""
    touch(tmp_path, "a.onnx")
    before = stamped(tmp_path / "a.onnx", "late.bin")
    touch(tmp_path, "late.bin")
    assert stamped(tmp_path / "a.onnx", "late.bin") != before


def test_data_files_are_guessed_when_exporters_name_them(tmp_path: Path) -> None:
    touch(tmp_path, "a.onnx", "a.onnx.data", "a.onnx_data", "a.data", "b.onnx.data", "a.bin", "a.txt")
    assert set(data_files(tmp_path / "a.onnx")) == {"a.onnx.data", "a.onnx_data", "a.data", "a.bin"}
    assert data_files(tmp_path / "a.pt") == ()


def test_digest_is_of_the_bytes_when_the_file_has_another_name(tmp_path: Path) -> None:
    """Renaming makes no new model."""
    one, other = onnx_adder(tmp_path / "1") / "model.onnx", tmp_path / "other.onnx"
    shutil.copy(one, other)
    assert source_digest(one) == source_digest(other)
    other.write_bytes(other.read_bytes() + b"\n")
    assert source_digest(one) != source_digest(other)


def test_digest_covers_weights_when_they_lie_beside(tmp_path: Path) -> None:
    """Also one that is missing, which is told from one that is empty."""
    touch(tmp_path, "a.onnx")
    without = source_digest(tmp_path / "a.onnx", ["w.bin"])
    (tmp_path / "w.bin").write_bytes(b"")
    empty = source_digest(tmp_path / "a.onnx", ["w.bin"])
    (tmp_path / "w.bin").write_bytes(b"w")
    assert len({without, empty, source_digest(tmp_path / "a.onnx", ["w.bin"])}) == 3


@given(content=st.dictionaries(st.sampled_from(["a", "b/c", "d/e"]), st.binary(max_size=8), min_size=1))
def test_package_digest_is_of_names_and_bytes_when_copied(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes]
) -> None:
    """A copy of a package under another name, made in another order, is the same model."""
    folder = tmp_path_factory.mktemp("packages")
    for package, names in (("x.mlpackage", sorted(content)), ("y.mlpackage", sorted(content, reverse=True))):
        for name in names:
            (folder / package / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / package / name).write_bytes(content[name])
    assert source_digest(folder / "x.mlpackage") == source_digest(folder / "y.mlpackage")
    (folder / "y.mlpackage" / "more").write_bytes(b"")
    assert source_digest(folder / "x.mlpackage") != source_digest(folder / "y.mlpackage")
