"""TorchScript: tensors get names, shapes come from what was logged, code that touches files is refused."""

import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from serving.core.datatypes import DTYPES
from serving.core.errors import ArtifactRefused
from serving.core.model import TensorSpec
from serving.formats.artifact import inspect_artifact
from serving.formats.loader import LoadedModel, load
from serving.formats.torch_archive import check_records
from tests import models


def loaded(folder: Path) -> LoadedModel:
    return load(inspect_artifact(folder), threads=1)


def forward(folder: Path, signature: str, *body: str) -> Path:
    source = f"def forward(self, {signature}:\n" + "\n".join(f"    {line}" for line in body)
    return models.save_torch_script(folder, source)


def x(*shape: int) -> dict[str, np.ndarray]:
    return {"x": np.ones(shape, np.float32)}


def test_script_has_unknown_shapes_when_nothing_was_logged(tmp_path: Path) -> None:
    """A bare file is served all the same."""
    model = loaded(models.torch_adder(tmp_path))
    assert model.inputs == (TensorSpec("x", "FP32", None),)
    assert model.outputs == (TensorSpec("OUTPUT__0", "FP32", None),)
    assert model.predict(x(1, 2))["OUTPUT__0"].tolist() == [[2.0, 2.0]]


def test_script_takes_shapes_from_the_example_when_there_is_no_signature(tmp_path: Path) -> None:
    """The first axis is the batch; outputs are those of the example's answer."""
    model = loaded(models.describe(models.torch_adder(tmp_path), example=[[0.5, 1.5]]))
    assert model.inputs == (TensorSpec("x", "FP32", (-1, 2)),)
    assert model.outputs == (TensorSpec("OUTPUT__0", "FP32", (-1, -1)),)


def test_script_matches_signature_by_name_when_all_names_agree(tmp_path: Path) -> None:
    """Otherwise by position, since many signatures are unnamed."""
    folder = forward(tmp_path, "a: Tensor, b: Tensor) -> Tensor", "return a + b")
    tensors = [("b", "int64", [-1, 2]), ("a", "float32", [-1, 1])]
    models.describe(folder, inputs=tensors, outputs=[("", "float32", [-1, 2])])
    assert loaded(folder).inputs == (TensorSpec("a", "FP32", (-1, 1)), TensorSpec("b", "INT64", (-1, 2)))


@pytest.mark.parametrize(
    ("returns", "expression", "count"),
    [
        ("Tensor", "x", 1),
        ("Tuple[Tensor, Tensor]", "(x, x + 1)", 2),
        ("List[Tensor]", "[x, x + 1, x + 2]", 3),
        ("Dict[str, Tensor]", "{'b': x, 'a': x + 1}", 2),
        ("Tuple[Tensor, List[Tensor]]", "(x, [x + 1, x + 2])", 3),
    ],
)
def test_script_numbers_its_outputs_when_it_returns_several(
    returns: str, expression: str, count: int, tmp_path: Path
) -> None:
    """Tensor, tuple, list and dict all become OUTPUT__i, in order."""
    folder = forward(tmp_path, f"x: Tensor) -> {returns}", f"return {expression}")
    model = loaded(models.describe(folder, example=[[0.0, 0.0]]))
    answer = model.predict(x(1, 2))
    assert [spec.name for spec in model.outputs] == list(answer) == [f"OUTPUT__{i}" for i in range(count)]
    assert [array[0, 0] for array in answer.values()] == [1.0 + i for i in range(count)]


def test_script_reports_real_datatypes_when_an_example_was_logged(tmp_path: Path) -> None:
    """Every type a tensor can have crosses over, BF16 included."""
    folder = forward(
        tmp_path,
        "x: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]",
        "return (x.to(torch.bfloat16), x.to(torch.float16), x > 0, x.argmax())",
    )
    model = loaded(models.describe(folder, example=[[0.0, 0.0]]))
    assert [spec.datatype for spec in model.outputs] == ["BF16", "FP16", "BOOL", "INT64"]
    answer = model.predict(x(1, 2))
    assert answer["OUTPUT__0"].dtype == DTYPES["BF16"]
    assert answer["OUTPUT__0"].tolist() == [[1.0, 1.0]]


def test_script_takes_bfloat16_when_declared(tmp_path: Path) -> None:
    """A type numpy does not have natively is handed over bit by bit."""
    model = loaded(models.torch_adder(tmp_path))
    half = np.array([1.5, -2.0]).astype(DTYPES["BF16"])
    assert model.predict({"x": half})["OUTPUT__0"].tolist() == [2.5, -1.0]


def test_script_leaves_the_caller_s_array_alone_when_it_works_in_place(tmp_path: Path) -> None:
    """The same input may go to another version afterwards."""
    model = loaded(forward(tmp_path, "x: Tensor) -> Tensor", "return x.add_(1)"))
    inputs = x(1, 2)
    assert model.predict(inputs)["OUTPUT__0"].tolist() == [[2.0, 2.0]]
    assert inputs["x"].tolist() == [[1.0, 1.0]]


def test_script_keeps_defaults_when_forward_has_optional_arguments(tmp_path: Path) -> None:
    """Only required arguments become inputs."""
    folder = forward(tmp_path, "x: Tensor, k: int = 3, m: Optional[Tensor] = None) -> Tensor", "return x * k")
    model = loaded(folder)
    assert [spec.name for spec in model.inputs] == ["x"]
    assert model.predict(x(1))["OUTPUT__0"].tolist() == [3.0]


@pytest.mark.parametrize("kind", ["int", "List[Tensor]", "str", "Dict[str, Tensor]"])
def test_script_is_refused_when_forward_needs_something_else_than_tensors(kind: str, tmp_path: Path) -> None:
    """A request carries tensors only."""
    folder = forward(tmp_path, f"x: Tensor, other: {kind}) -> Tensor", "return x")
    with pytest.raises(ArtifactRefused, match=r"takes 'other: .*wrap the model"):
        loaded(folder)


def network() -> torch.nn.Module:
    """A CNN with what real ones are made of."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Dropout(),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 10),
        torch.nn.Softmax(1),
    )
    return model.eval()


@pytest.mark.parametrize("how", ["script", "trace", "freeze"])
def test_archive_passes_when_it_is_an_ordinary_network(how: str, tmp_path: Path) -> None:
    """Scripted, traced and frozen CNNs load, and answer as the original does."""
    eager = network()
    image = torch.rand(1, 1, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.script(eager)
        if how == "trace":
            module = torch.jit.trace(eager, image)  # type: ignore[no-untyped-call]
        module = torch.jit.freeze(module) if how == "freeze" else module
        torch.jit.save(module, str(tmp_path / "model.pt"))
    answer = loaded(tmp_path).predict({"input": image.numpy()})["OUTPUT__0"]
    np.testing.assert_allclose(answer, eager(image).detach().numpy(), rtol=1e-4, atol=1e-6)


def test_archive_passes_when_its_library_code_is_large(tmp_path: Path) -> None:
    """Attention brings thousands of lines of its own."""
    layer = torch.nn.TransformerEncoderLayer(8, 2, batch_first=True)
    eager = torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    save(eager, tmp_path)
    assert loaded(tmp_path).predict({"src": np.zeros((1, 3, 8), np.float32)})["OUTPUT__0"].shape == (1, 3, 8)


def test_archive_is_refused_when_forward_is_overloaded(tmp_path: Path) -> None:
    """A bare LSTM takes packed sequences too, so no one call can be meant."""
    save(torch.nn.LSTM(8, 4), tmp_path)
    with pytest.raises(ArtifactRefused, match="no single forward method"):
        loaded(tmp_path)


def save(module: torch.nn.Module, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module.eval()), str(folder / "model.pt"))


def test_archive_is_refused_when_really_scripted_code_saves(tmp_path: Path) -> None:
    """`torch.save` in a script writes any path; it never runs here."""
    target = tmp_path / "written"
    folder = forward(tmp_path / "m", "x: Tensor) -> Tensor", f"torch.save(x, '{target}')", "return x")
    with pytest.raises(ArtifactRefused, match="operator save"):
        loaded(folder)
    assert not target.exists()


def test_archive_is_refused_when_really_scripted_code_reads_a_file(tmp_path: Path) -> None:
    """`torch.from_file` in a script reads any path."""
    body = "return torch.from_file('/etc/hostname', False, 4, dtype=torch.uint8)"
    with pytest.raises(ArtifactRefused, match="operator from_file"):
        loaded(forward(tmp_path, "x: Tensor) -> Tensor", body))


# Each was run through torch.jit.load once without the check: all of them wrote the file.
EVASIONS = [
    "torch.save(x, 'F')",
    "ops.aten.save(x, 'F')",
    "t = torch\n    t.save(x, 'F')",
    "t = torch.save\n    t(x, 'F')",
    "getattr(torch, 'save')(x, 'F')",
    "t = getattr(torch, 'sa' 've')\n    t(x, 'F')",
    "t = getattr(ops.aten, '\\163ave')\n    t(x, 'F')",
    "(torch . # comment\n save)(x, 'F')",
    "torch.\\\nsave(x, 'F')",
]


def edited(folder: Path, line: str) -> Path:
    """An archive whose code was changed by hand, as nobody's exporter would write it."""
    original = models.torch_adder(folder / "original") / "model.pt"
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(folder / "model.pt", "w") as target:
        for member in source.infolist():
            content = source.read(member)
            if member.filename.endswith(".py"):
                content = content.replace(b"    return", f"    {line}\n    return".encode())
            if not member.filename.endswith(".debug_pkl"):
                target.writestr(member.filename, content)
    original.unlink()
    return folder


@pytest.mark.parametrize("evasion", EVASIONS)
def test_archive_is_refused_when_its_code_hides_what_it_does(evasion: str, tmp_path: Path) -> None:
    """Aliases, getattr, escapes and odd spacing change nothing."""
    target = tmp_path / "written"
    with pytest.raises(ArtifactRefused, match=r"the code in 'model\.pt'"):
        loaded(edited(tmp_path, evasion.replace("F", str(target))))
    assert not target.exists()


@pytest.mark.parametrize("evasion", EVASIONS[:7])
def test_evasion_is_real_when_nothing_checks_it(evasion: str, tmp_path: Path) -> None:
    """The check defends against code that torch does run."""
    target = tmp_path / "written"
    edited(tmp_path, evasion.replace("F", str(target)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.load(str(tmp_path / "model.pt"))(torch.zeros(1))  # type: ignore[no-untyped-call]
    assert target.exists()


@pytest.mark.parametrize(
    "code",
    [
        "a = ops.dist.send(x)",
        "a = ops.prim.rpc_sync(x)",
        "a = ops.prim",
        "a = __torch__.torch.classes.dist_rpc.WorkerInfo(x)",
        "a = __torch__.torch.classes",
        "a = __torch__.torch",
        "a = getattr(x, name)",
        "a = x.from_file",
        "# \r a = 1",
        "a = (",
        "a = '\N{LATIN SMALL LETTER E WITH ACUTE}'",
    ],
)
def test_records_are_refused_when_their_code_is_not_known_to_be_harmless(code: str) -> None:
    """Namespaces are allowed by list; what cannot be read is refused too."""
    with pytest.raises(ArtifactRefused):
        check_records({"code/__torch__.py": code.encode()}, "model.pt")


@pytest.mark.parametrize(
    "code",
    [
        "a = torch.conv2d(x, w)",
        "a = ops.prim.dtype(x)",
        "a = ops.quantized.linear(x, p)",
        "a = __torch__.torch.nn.functional.relu(x)",
        "p : __torch__.torch.classes.quantized.LinearPackedParamsBase",
        "a = getattr(self, '0')",
        "a = self.classes",
        "a = 'please save the file, or load from_file'",
    ],
)
def test_records_pass_when_their_code_only_computes(code: str) -> None:
    """Attributes and messages that merely sound alike are fine."""
    check_records({"code/__torch__.py": code.encode()}, "model.pt")


@pytest.mark.parametrize(
    "pickled",
    [b"c__torch__.torch.classes.dist_rpc\nWorkerInfo\n", b"c__torch__.torch\nclasses.rpc.X\n"],
)
def test_records_are_refused_when_their_state_holds_a_custom_class(pickled: bytes) -> None:
    """An object can come from the pickled state without any code naming it."""
    with pytest.raises(ArtifactRefused, match="custom class"):
        check_records({"data.pkl": pickled}, "model.pt")


def test_archive_is_refused_when_a_checksum_is_wrong(tmp_path: Path) -> None:
    """One flipped byte of a weight would otherwise be served."""
    layer = torch.nn.Linear(8, 8)
    save(layer, tmp_path)
    path = tmp_path / "model.pt"
    content = bytearray(path.read_bytes())
    content[content.index(layer.weight.detach().numpy().tobytes())] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactRefused, match="checksum"):
        loaded(tmp_path)


def test_archive_is_refused_when_an_entry_comes_twice(tmp_path: Path) -> None:
    """Two readers could each take another one."""
    folder = models.torch_adder(tmp_path)
    with zipfile.ZipFile(folder / "model.pt", "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        archive.writestr(archive.namelist()[0], b"other")
    with pytest.raises(ArtifactRefused, match="twice, and readers differ"):
        loaded(folder)
