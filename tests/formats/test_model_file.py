"""A lone model file: its format by content, or one sentence that says what is wrong with it."""

import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serving.core.errors import ArtifactRefused
from serving.core.model import Format
from serving.formats.limits import DEFAULT_LIMITS, FileLimits
from serving.formats.model_file import examine
from tests import coreml_models, models, torch_exports

GOOD: dict[str, tuple[Callable[[Path], Path], str, Format]] = {
    "onnx": (models.onnx_adder, "model.onnx", Format.ONNX),
    "torchscript": (models.torch_adder, "model.pt", Format.TORCHSCRIPT),
    "pt2": (torch_exports.export_adder, "model.pt2", Format.PT2),
    "mlmodel": (coreml_models.save_network, "model.mlmodel", Format.COREML),
    "mlpackage": (coreml_models.save_package, "model.mlpackage", Format.COREML),
}


def refused(path: Path, limits: FileLimits = DEFAULT_LIMITS) -> str:
    """The refusal: one sentence with a next step, naming the file."""
    with pytest.raises(ArtifactRefused) as caught:
        examine(path, limits)
    assert caught.value.next_step
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", GOOD)
def test_file_is_recognised_when_it_is_sound(kind: str, tmp_path: Path) -> None:
    """Each format under its own name."""
    make, name, want = GOOD[kind]
    assert examine(make(tmp_path) / name) is want


@pytest.mark.parametrize("kind", GOOD)
def test_file_is_recognised_when_its_name_says_nothing(kind: str, tmp_path: Path) -> None:
    """The content decides: an archive's members, a message's fields, a package's manifest."""
    make, name, want = GOOD[kind]
    bare = (make(tmp_path) / name).rename(tmp_path / "weights")
    assert examine(bare) is want


@pytest.mark.parametrize(
    ("kind", "suffix", "problem"),
    [
        (
            "torchscript",
            ".onnx",
            "named as an ONNX model but is a TorchScript archive; rename it to 'model.pt'",
        ),
        ("torchscript", ".pt2", "named as a torch.export archive but is a TorchScript archive"),
        (
            "pt2",
            ".pt",
            "named as a TorchScript archive but is a torch.export archive; rename it to 'model.pt2'",
        ),
        ("onnx", ".mlmodel", "named as a Core ML specification but is an ONNX model"),
        ("mlmodel", ".onnx", "named as an ONNX model but is a Core ML specification"),
        ("onnx", ".pt", "named as a TorchScript archive but is an ONNX model"),
        ("mlpackage", ".onnx", "named as an ONNX model but is a Core ML package"),
    ],
)
def test_file_is_refused_when_its_name_is_of_another_format(
    kind: str, suffix: str, problem: str, tmp_path: Path
) -> None:
    """What it really is, and the name it should have."""
    make, name, _ = GOOD[kind]
    path = make(tmp_path) / name
    assert problem in refused(path.rename(path.with_suffix(suffix)))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("gone.onnx", None, "there is no file 'gone.onnx'"),
        ("a.onnx", b"", "'a.onnx' is empty"),
        ("a.pt2", b"", "'a.pt2' is empty"),
        ("a.onnx", b"<html>not found</html>", "a text file, not a model"),
        ("a.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "the pointer that Git LFS"),
        ("a.pt", pickle.dumps({}), "a pickled eager PyTorch model"),
        ("a.onnx", pickle.dumps({}), "a pickle, which runs stored code"),
        ("a.pt2", b"PK\x03\x04rest", "truncated or damaged archive"),
        ("a.onnx", b"\x89HDF\r\n\x1a\n....", "an HDF5 file, as Keras writes them"),
        ("a.onnx", b"\x08\x99\xff\x00\x01" * 99, "not a readable ONNX file"),
        ("a.mlmodel", b"\x08\x99\xff\x00\x01" * 99, "a truncated or damaged Core ML specification"),
        ("a.bin", b"\x00\x01\x02", "not a model file of a known format"),
    ],
)
def test_file_is_refused_when_it_is_no_model(
    name: str, content: bytes | None, problem: str, tmp_path: Path
) -> None:
    """It says what the file is instead."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert problem in refused(tmp_path / name)


def test_file_is_refused_when_it_is_a_pipe(tmp_path: Path) -> None:
    """Opening one would wait for somebody to write into it."""
    os.mkfifo(tmp_path / "model.onnx")
    assert "neither a file nor a folder" in refused(tmp_path / "model.onnx")


def test_package_is_refused_when_a_part_cannot_be_read(tmp_path: Path) -> None:
    """As a folder in the place of a file."""
    path = coreml_models.save_package(tmp_path) / "model.mlpackage"
    (path / "Data" / "weights.bin").mkdir()
    assert "cannot be read (Is a directory)" in refused(path)


def test_folder_is_refused_when_it_is_no_package(tmp_path: Path) -> None:
    """Any folder may lie among models."""
    assert "a folder, but no Core ML package" in refused(tmp_path)


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "pt2", "mlmodel"])
@pytest.mark.parametrize("keep_ratio", [0.1, 0.5, 0.9])
def test_file_is_refused_when_it_is_cut_short(kind: str, keep_ratio: float, tmp_path: Path) -> None:
    """An upload that stopped is seen without loading the file."""
    make, name, _ = GOOD[kind]
    path = make(tmp_path) / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep_ratio)])
    assert name in refused(path)


@pytest.mark.parametrize(("kind", "name"), [("torchscript", "model.pt"), ("pt2", "model.pt2")])
def test_archive_is_refused_when_it_is_a_bomb(kind: str, name: str, tmp_path: Path) -> None:
    """By its directory, before anything is unpacked."""
    path = GOOD[kind][0](tmp_path) / name
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/extra/zeros", bytes(64 << 20))
    assert "as only a zip bomb does" in refused(path)


@pytest.mark.parametrize("entry", ["../../etc/cron.d/a", "/etc/a", "a\\..\\..\\b", "C:\\a"])
def test_archive_is_refused_when_an_entry_leads_out_of_it(entry: str, tmp_path: Path) -> None:
    """On any platform's way of writing paths."""
    path = models.torch_adder(tmp_path) / "model.pt"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, b"")
    assert "names an entry outside the archive" in refused(path)


def test_archive_is_refused_when_an_entry_comes_twice(tmp_path: Path) -> None:
    """Two readers could each take another one."""
    path = torch_exports.export_adder(tmp_path) / "model.pt2"
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        archive.writestr(archive.namelist()[0], b"other")
    assert "twice, and readers differ" in refused(path)


def test_archive_is_refused_when_it_is_encrypted(tmp_path: Path) -> None:
    """Nothing that serves has a password."""
    path = torch_exports.export_adder(tmp_path) / "model.pt2"
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1  # the flag in the last directory entry
    path.write_bytes(bytes(content))
    assert "is encrypted" in refused(path)


@pytest.mark.parametrize("code", ["torch.from_file('/etc/passwd', False, 3) + x", "x.save('/tmp/x')"])
def test_script_is_refused_when_its_code_touches_files(code: str, tmp_path: Path) -> None:
    """Such code reads and writes any path at inference."""
    archive = models.torch_adder(tmp_path) / "model.pt"
    with zipfile.ZipFile(archive) as source:
        records = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(archive, "w") as target:
        for name, content in records.items():
            changed = content.replace(b"torch.add(x, 1.)", code.encode()) if name.endswith(".py") else content
            target.writestr(name, changed)
    assert "only code known to leave files and processes alone is run" in refused(archive)


def onnx_file(folder: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    proto = onnx.load(models.onnx_adder(folder) / "model.onnx")
    change(proto)
    return models.save_onnx(folder, proto) / "model.onnx"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda proto: setattr(proto.opset_import[0], "version", 999),
            f"uses opset 999, and {onnx.defs.onnx_opset_version()} is the newest known here",
        ),
        (
            lambda proto: setattr(proto, "ir_version", 99),
            f"has IR version 99, and {int(onnx.IR_VERSION)} is the newest known here",
        ),
        (
            lambda proto: setattr(proto.graph.node[0], "domain", "my.ops"),
            "uses operator Add of the custom domain 'my.ops'",
        ),
        (
            lambda proto: setattr(proto.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 10**12),
            "input 'x' of 'model.onnx' declares 1000000000000 elements",
        ),
        (
            lambda proto: setattr(proto.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", -5),
            "declares the negative length -5",
        ),
        (
            lambda proto: proto.graph.initializer[0].dims.__setitem__(0, 1 << 40),
            f"weight 'constant' of 'model.onnx' declares {1 << 40} elements",
        ),
        (
            lambda proto: proto.graph.initializer[0].CopyFrom(
                TensorProto(name="constant", data_type=1, dims=[8], raw_data=b"1234")
            ),
            "weight 'constant' of 'model.onnx' declares 32 bytes and holds 4",
        ),
        (lambda proto: proto.graph.ClearField("output"), "holds no ONNX graph"),
    ],
)
def test_onnx_is_refused_when_it_asks_for_more_than_there_is(
    change: Callable[[onnx.ModelProto], object], problem: str, tmp_path: Path
) -> None:
    """Versions are told as theirs and ours."""
    assert problem in refused(onnx_file(tmp_path, change))


def test_onnx_is_refused_when_a_branch_hides_a_custom_operator(tmp_path: Path) -> None:
    """Graphs within nodes count."""
    hidden = helper.make_node("Evil", ["x"], ["z"], domain="my.ops")
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, [])
    branch = helper.make_graph([hidden], "branch", [], [value])
    choice = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
    path = onnx_file(tmp_path, lambda proto: proto.graph.node.append(choice))
    assert "operator Evil of the custom domain 'my.ops'" in refused(path)


def test_onnx_passes_when_its_own_functions_have_a_domain(tmp_path: Path) -> None:
    """torch's exporter puts whole functions into the file; those need no library."""
    body = [helper.make_node("Identity", ["a"], ["b"])]
    function = helper.make_function("mine", "Same", ["a"], ["b"], body, [helper.make_opsetid("", 17)])

    def change(proto: onnx.ModelProto) -> None:
        proto.functions.append(function)
        proto.opset_import.append(helper.make_opsetid("mine", 1))
        proto.graph.node.append(helper.make_node("Same", ["x"], ["unused"], domain="mine"))

    assert examine(onnx_file(tmp_path, change)) is Format.ONNX


def external(proto: onnx.ModelProto, **place: str) -> None:
    """Move the one weight to a file."""
    tensor = proto.graph.initializer[0]
    tensor.CopyFrom(TensorProto(name="constant", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL))
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ({"location": "w.bin"}, None),
        ({"location": "w.bin", "offset": "4", "length": "4"}, None),
        ({"location": "../w.bin"}, "lies outside the model's folder"),
        ({"location": "/etc/passwd"}, "lies outside the model's folder"),
        ({"location": "link.bin"}, "lies outside the model's folder"),
        ({}, "lies outside the model's folder"),
        ({"location": "gone.bin"}, "'gone.bin' is missing"),
        ({"location": "w.bin", "offset": "8"}, "'w.bin' is too short: 8 bytes of 12"),
        ({"location": "w.bin", "length": "8"}, "declares another size than its place"),
        ({"location": "w.bin", "offset": "-4"}, "declares another size than its place"),
        ({"location": "w.bin", "offset": "many"}, "declares another size than its place"),
    ],
)
def test_onnx_weights_are_confined_when_they_lie_in_files(
    place: dict[str, str], problem: str | None, tmp_path: Path
) -> None:
    """Outside the folder, missing, too short: each told apart."""
    folder = tmp_path / "models"
    path = onnx_file(folder, lambda proto: external(proto, **place))
    (folder / "w.bin").write_bytes(np.ones(2, np.float32).tobytes())
    (tmp_path / "w.bin").write_bytes(bytes(8))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    if problem is None:
        assert examine(path) is Format.ONNX
    else:
        assert problem in refused(path)


def package(folder: Path, change: Callable[[dict[str, object]], object]) -> Path:
    path = coreml_models.save_package(folder) / "model.mlpackage"
    manifest = json.loads((path / "Manifest.json").read_text())
    change(manifest)
    (path / "Manifest.json").write_text(json.dumps(manifest))
    return path


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda m: m.update(rootModelIdentifier="other"), "does not say which item is the model"),
        (lambda m: m.pop("itemInfoEntries"), "does not say which item is the model"),
        (
            lambda m: [item.update(path="../../outside.mlmodel") for item in m["itemInfoEntries"].values()],
            "names a file outside the package: '../../outside.mlmodel'",
        ),
        (
            lambda m: [item.update(path="com.apple.CoreML/gone") for item in m["itemInfoEntries"].values()],
            "lacks 'com.apple.CoreML/gone', which its Manifest.json lists",
        ),
        (
            lambda m: [item.pop("path") for item in m["itemInfoEntries"].values()],
            "lists an item without path",
        ),
    ],
)
def test_package_is_refused_when_its_manifest_leads_astray(
    change: Callable[[dict[str, object]], object], problem: str, tmp_path: Path
) -> None:
    """The manifest is data from somebody else."""
    assert problem in refused(package(tmp_path, change))


def test_package_is_refused_when_its_manifest_is_missing_or_no_json(tmp_path: Path) -> None:
    """A package is told by its manifest."""
    path = coreml_models.save_package(tmp_path) / "model.mlpackage"
    (path / "Manifest.json").write_text("{")
    assert "Manifest.json of 'model.mlpackage' is not readable JSON" in refused(path)
    (path / "Manifest.json").unlink()
    assert "'model.mlpackage' has no Manifest.json" in refused(path)


def test_package_is_refused_when_a_file_links_out_of_it(tmp_path: Path) -> None:
    """Copying it would copy what it points at."""
    path = coreml_models.save_package(tmp_path) / "model.mlpackage"
    (path / "Data" / "passwords").symlink_to("/etc/passwd")
    assert "links to something outside of it: 'Data/passwords'" in refused(path)


def test_package_is_refused_when_its_weights_are_cut_short(tmp_path: Path) -> None:
    """The program says how far they reach."""
    path = coreml_models.save_package(tmp_path) / "model.mlpackage"
    weights = path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "weight" in refused(path)


def test_core_ml_is_refused_when_its_specification_is_of_the_future(tmp_path: Path) -> None:
    """Theirs and ours are named."""
    path = coreml_models.save_network(tmp_path) / "model.mlmodel"
    path.write_bytes(b"\x08\x63" + path.read_bytes()[2:])
    assert "has Core ML specification version 99, and 10 is the newest known here" in refused(path)


def test_file_is_refused_when_it_is_larger_than_the_limit(tmp_path: Path) -> None:
    """Packages count as a whole."""
    few = FileLimits(max_file_bytes=100, max_entries=2)
    assert "more than the limit of 100" in refused(models.onnx_adder(tmp_path) / "model.onnx", few)
    assert "more than the limit of 100" in refused(
        coreml_models.save_package(tmp_path) / "model.mlpackage", few
    )
    many = FileLimits(max_entries=2)
    assert "entries, more than the limit of 2" in refused(tmp_path / "model.mlpackage", many)
