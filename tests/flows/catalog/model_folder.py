"""A folder of model files as a team might leave it: 40 good ones of all formats and 25 bad ones, generated.

    python -m tests.flows.catalog.model_folder FOLDER

In a process of its own, because the exporters are heavy and warn of themselves. Prints one JSON line:
what was made, and of each bad file a word of the reason for which it must be refused.
"""

import json
import logging
import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.models import onnx_adder, onnx_echo, onnx_graph, save_torch_script, scalar

GOOD, BAD = 40, 25


def fill(folder: Path) -> Mapping[str, Any]:
    """Generate every file; names of the good ones, and of the bad ones the words they are refused with."""
    folder.mkdir(parents=True, exist_ok=True)
    good = [*_onnx(folder), *_torch_scripts(folder), *_exported(folder), *_core_ml(folder)]
    bad = _bad(folder)
    assert (len(good), len(bad)) == (GOOD, BAD)
    return {"good": good, "bad": bad}


def _onnx(folder: Path) -> list[str]:
    """Plain, in a nested folder, with a side file and set of its own, with external data of two namings."""
    names = []
    for number in range(8):
        names.append(_move(folder, f"adder-{number}.onnx", partial(onnx_adder, constant=1.0 + number)))
    for number in range(2):
        names.append(_move(folder, f"nested/echo-{number}.onnx", partial(_echo, number=number)))
    _evaluation(folder / "sets" / "toy.npz", {"x": np.eye(3, dtype=np.float32)[np.arange(12) % 3]})
    names.append(_move(folder, "described.onnx", partial(onnx_adder, constant=0.25)))
    (folder / "described.model.yaml").write_text(
        "name: described\nmodel_type: classifier\ndescription: Says what it is given.\nauthor: A. Maker\n"
        "owner: vision\ncritical: true\ntraining_dataset: toy\nmetrics: {accuracy: 0.9}\n"
        "params: {epochs: 3}\ntags: {stage: test}\nevaluation_set: sets/toy.npz\nlabels: [a, b, c]\n"
        "dependencies: [scipy]\nlicence: MIT\nbaseline: {latency_p50_ms: 1.5, memory_mb: 12}\n"
    )
    names.append(_with_weights(folder, "weighty.onnx", "weighty.onnx.data", 7.0))
    names.append(_with_weights(folder, "oddly.onnx", "tensors-of-oddly", 8.0))
    names.append(_with_weights(folder, "deep/down/apart.onnx", "parts/apart.bin", 9.0))
    return names


def _torch_scripts(folder: Path) -> list[str]:
    names = []
    for number in range(6):
        source = f"def forward(self, x: Tensor) -> Tensor:\n    return x * {number + 2}"
        names.append(_move(folder, f"script-{number}.pt", partial(save_torch_script, forward=source)))
    for number in range(4):
        # With an example, what it answers can be recorded.
        name = f"shown/shown-{number}.pth"
        source = f"def forward(self, x: Tensor) -> Tensor:\n    return x.softmax(1) + {number}"
        names.append(_move(folder, name, partial(save_torch_script, forward=source)))
        (folder / f"shown/shown-{number}.model.yaml").write_text("example: rows.npz\n")
    _rows(folder / "shown" / "rows.npz")
    return names


def _exported(folder: Path) -> list[str]:
    import torch

    names = []
    for number in range(8):
        torch.manual_seed(number)
        net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
        batch = torch.export.Dim("batch", max=64)
        program = torch.export.export(net, (torch.ones(4, 3),), dynamic_shapes=({0: batch},))
        names.append(f"exported-{number}.pt2")
        torch.export.save(program, folder / names[-1])
    return names


def _core_ml(folder: Path) -> list[str]:
    """Packages of programs, and networks of the older kind in single files."""
    logging.getLogger("coremltools").setLevel(logging.CRITICAL)
    import coremltools as ct
    import torch

    names = []
    for number in range(8):
        torch.manual_seed(100 + number)
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten())
        traced = torch.jit.trace(net.eval(), torch.ones(1, 1, 8, 8))  # type: ignore[no-untyped-call]
        kind = "mlprogram" if number < 5 else "neuralnetwork"
        precision = {"compute_precision": ct.precision.FLOAT32} if kind == "mlprogram" else {}
        inputs = [ct.TensorType("image", shape=(1, 1, 8, 8))]
        model = ct.convert(traced, inputs=inputs, convert_to=kind, **precision)
        names.append(f"apple-{number}.{'mlpackage' if kind == 'mlprogram' else 'mlmodel'}")
        model.save(str(folder / names[-1]))
    return names


def _bad(folder: Path) -> dict[str, str]:
    bad = folder / "bad"
    bad.mkdir()
    makers = {**_BROKEN, **_UNSAFE, **_MISDESCRIBED, **_FAILING}
    for name, (make, _) in makers.items():
        make(bad / name)
    return {f"bad/{name}": word for name, (_, word) in makers.items()}


Maker = Callable[[Path], object]


def _adder_bytes() -> bytes:
    with TemporaryDirectory() as made:
        return (onnx_adder(Path(made), 3.5) / "model.onnx").read_bytes()


def _script_bytes(source: str = "def forward(self, x: Tensor) -> Tensor:\n    return x + 3.5") -> bytes:
    with TemporaryDirectory() as made:
        return (save_torch_script(Path(made), source) / "model.pt").read_bytes()


def _script(source: str) -> Maker:
    def make(path: Path) -> None:
        path.write_bytes(_script_bytes(source))
        _rows(path.with_suffix(".npz"))
        path.with_name(f"{path.name}.model.yaml").write_text(f"example: {path.stem}.npz\n")

    return make


def _model(change: Callable[[onnx.ModelProto], object]) -> Maker:
    def make(path: Path) -> None:
        model = onnx.ModelProto.FromString(_adder_bytes())
        change(model)
        path.write_bytes(model.SerializeToString())

    return make


def _described(text: str) -> Maker:
    def make(path: Path) -> None:
        path.write_bytes(_adder_bytes())
        path.with_name(f"{path.name}.model.yaml").write_text(text)

    return make


def _archive(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Maker:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in members.items():
                archive.writestr(name, content)

    return make


def _package_without_model(path: Path) -> None:
    (path / "Data").mkdir(parents=True)
    (path / "Manifest.json").write_text("{}")


def _evaluation_of_other_columns(path: Path) -> None:
    _described("evaluation_set: other.npz\n")(path)
    _evaluation(path.with_name("other.npz"), {"x": np.ones((5, 4), np.float32)})


def _set_future_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def _set_custom_domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example.private"
    model.opset_import.append(helper.make_opsetid("com.example.private", 1))


def _set_huge(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 40


def _set_external(location: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        weight = model.graph.initializer[0]
        weight.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), weight.name))
        onnx.external_data_helper.set_external_data(weight, location)
        weight.ClearField("raw_data")

    return change


_PT2 = {"a/archive_format": b"pt2", "a/archive_version": b"0", "a/byteorder": b"little"}
_SAVES = "def forward(self, x: Tensor) -> Tensor:\n    torch.save(x, '/tmp/out')\n    return x"
_HANGS = "def forward(self, x: Tensor) -> Tensor:\n    while True:\n        x = x + 0\n    return x"
_EATS = (
    "def forward(self, x: Tensor) -> Tensor:\n    y = torch.ones(1000000)\n"
    "    while True:\n        y = torch.cat([y, y])\n    return x"
)

_BROKEN: dict[str, tuple[Maker, str]] = {
    "empty.onnx": (lambda path: path.write_bytes(b""), "is empty"),
    "truncated.onnx": (lambda path: path.write_bytes(_adder_bytes()[:60]), "truncated"),
    "page.pt": (lambda path: path.write_text("<html>Not found</html>"), "text file"),
    "half.pt": (lambda path: path.write_bytes(_script_bytes()[:700]), "truncated or damaged archive"),
    "picture.pt": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300)), "not a model file"),
    "script.onnx": (lambda path: path.write_bytes(_script_bytes()), "named as an ONNX model but is"),
    "pointer.pt2": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "Git LFS",
    ),
    "hollow.mlpackage": (_package_without_model, "Manifest.json"),
    "noise.mlmodel": (lambda path: path.write_bytes(bytes(range(129, 256)) * 4), "Core ML"),
    "keras.pt": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(300)), "HDF5"),
}
_UNSAFE: dict[str, tuple[Maker, str]] = {
    "pickle.pt": (lambda path: path.write_bytes(pickle.dumps({"weights": [1.0]})), "pickled"),
    "saver.pt": (_script(_SAVES), "uses"),
    "bomb.pt2": (_archive({**_PT2, "a/data/weights/0": bytes(64 << 20)}), "more than"),
    "climber.pt2": (_archive({**_PT2, "../../etc/passwd": b"x"}), "outside the archive"),
    "outside.onnx": (_model(_set_external("../../secret.bin")), "outside the model's folder"),
    "private.onnx": (_model(_set_custom_domain), "custom domain"),
    "huge.onnx": (_model(_set_huge), "more than the limit"),
}
_MISDESCRIBED: dict[str, tuple[Maker, str]] = {
    "unknown-key.onnx": (_described("nmae: digits\n"), "unknown key 'nmae'"),
    "wrong-type.onnx": (_described("metrics:\n  accuracy: high\n"), "line 2: key 'metrics.accuracy'"),
    "unsafe.onnx": (_described("name: !!python/object/apply:os.system [id]\n"), "may not"),
    "other-columns.onnx": (_evaluation_of_other_columns, "evaluation set has shape"),
}
_FAILING: dict[str, tuple[Maker, str]] = {
    "future.onnx": (_model(_set_future_opset), "opset 999"),
    "weightless.onnx": (_model(_set_external("gone.bin")), "'gone.bin' is missing"),
    "hanging.pt": (_script(_HANGS), "hangs"),
    "hungry.pt": (_script(_EATS), "of memory"),
}


def _move(folder: Path, name: str, make: Callable[[Path], Path]) -> str:
    with TemporaryDirectory() as made:
        [file] = make(Path(made) / "m").iterdir()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(file.read_bytes())
    return name


def _echo(folder: Path, number: int) -> Path:
    types = (TensorProto.INT64, TensorProto.DOUBLE)
    return onnx_echo(folder, types[number], ("batch", 2))


def _with_weights(folder: Path, name: str, data: str, value: float) -> str:
    node = helper.make_node("Add", ["x", "constant"], ["y"])
    model = onnx_graph([node], weights=[scalar("constant", value)])
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(np.full(1, value, np.float32), weight.name))
    path = folder / name
    (path.parent / data).parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, path, save_as_external_data=True, location=data, size_threshold=0)
    return name


def _rows(path: Path) -> None:
    arrays: dict[str, Any] = {"input:x": np.ones((4, 3), np.float32)}
    np.savez(path, allow_pickle=False, **arrays)


def _evaluation(path: Path, inputs: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {f"input:{name}": array for name, array in inputs.items()}
    labels = np.arange(len(next(iter(inputs.values())))) % 3
    np.savez(path, allow_pickle=False, labels=labels, **arrays)


def main() -> None:
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # exporters print; only the last line is ours
    told.write(json.dumps(fill(folder)) + "\n")
    told.close()


if __name__ == "__main__":
    main()
