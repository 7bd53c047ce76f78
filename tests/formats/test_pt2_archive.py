"""torch.export archives: whatever torch's own loader would unpickle, evaluate, compile or link is refused."""

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export.pt2_archive._package import load_pt2

from serving.core.errors import ArtifactRefused
from serving.core.model import Format
from serving.formats.limits import FileLimits
from serving.formats.model_file import examine
from tests import torch_exports
from tests.torch_exports import record, rewritten

WEIGHTS = "data/weights/model_weights_config.json"
PROGRAM = "models/model.json"


class Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self._marker,)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return torch_exports.export_linear(tmp_path) / "model.pt2"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "was here"


def refused(path: Path) -> str:
    with pytest.raises(ArtifactRefused) as caught:
        examine(path)
    assert caught.value.next_step
    return str(caught.value)


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def changed(path: Path, name: str, change: Callable[[Any], object]) -> Path:
    """The archive with one JSON record changed in place."""
    content = record(path, name)
    change(content)
    return rewritten(path, {name: json.dumps(content).encode()})


def pickled_weight(path: Path, marker: Path) -> None:
    changed(path, WEIGHTS, lambda content: content["config"]["weight"].update(use_pickle=True))
    rewritten(path, {"data/weights/weight_0": saved(Touch(marker))})


def pickled_sample(path: Path, marker: Path) -> None:
    rewritten(path, {"data/sample_inputs/model.pt": saved(Touch(marker))})


def legacy_weights(path: Path, marker: Path) -> None:
    rewritten(path, {"data/weights/model.pt": saved({"weight": Touch(marker)})})


def opaque_constant(path: Path, marker: Path) -> None:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    config = {"config": {"thing": entry}}
    rewritten(
        path,
        {
            "data/constants/model_constants_config.json": json.dumps(config).encode(),
            "data/constants/opaque_obj_0": pickle.dumps(Touch(marker)),
        },
    )


def evaluated_shape(path: Path, marker: Path) -> None:
    code = f"__import__('pathlib').Path({str(marker)!r}).touch() or 3"
    evil = {"as_expr": {"expr_str": code, "hint": None}}

    def change(content: Any) -> None:
        content["graph_module"]["graph"]["tensor_values"]["input"]["sizes"][0] = evil

    changed(path, PROGRAM, change)


def called_function(path: Path, marker: Path) -> None:
    """Whatever Python finds under `torch` would be called at inference."""

    def change(content: Any) -> None:
        node = content["graph_module"]["graph"]["nodes"][-1]
        node["target"] = "torch.os.system"
        node["inputs"] = [{"name": "", "arg": {"as_string": f"touch '{marker}'"}, "kind": 1}]

    changed(path, PROGRAM, change)


def injected_name(path: Path, marker: Path) -> None:
    """Argument names are pasted into Python source."""
    code = f"input=__import__('pathlib').Path({str(marker)!r}).touch()"
    call = "module_call_graph"
    changed(
        path,
        PROGRAM,
        lambda content: content["graph_module"][call][0]["signature"].update(forward_arg_names=[code]),
    )


ATTACKS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "a weight": (pickled_weight, "stores 'weight' as a pickle (use_pickle)"),
    "sample inputs": (pickled_sample, "'data/sample_inputs/model.pt') of more than tensors"),
    "weights of an old layout": (legacy_weights, "'data/weights/model.pt') of more than tensors"),
    "an opaque object": (opaque_constant, "a pickled object ('data/constants/opaque_obj_0')"),
    "a shape": (evaluated_shape, "the shape expression '__import__"),
    "an operator": (called_function, "operator 'torch.os.system'"),
    "an argument name": (injected_name, "the argument name 'input=__import__"),
}


@pytest.mark.parametrize("place", ATTACKS)
def test_archive_runs_nothing_when_code_hides_in(place: str, path: Path, marker: Path) -> None:
    """Each refusal names the place, and the code has not run."""
    attack, problem = ATTACKS[place]
    attack(path, marker)
    assert problem in refused(path)
    assert not marker.exists()


@pytest.mark.parametrize("place", ["a weight", "sample inputs", "an opaque object", "a shape"])
def test_attack_is_real_when_torch_s_own_loader_reads_it(place: str, path: Path, marker: Path) -> None:
    """The attacks above are worth refusing: the loader we do without runs them."""
    ATTACKS[place][0](path, marker)
    with contextlib.suppress(Exception):  # some of it fails afterwards
        load_pt2(path)
    assert marker.exists()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("data/aotinductor/model/a.so", b"\x7fELF", "a compiled AOTInductor library"),
        ("data/aotinductor/model/a.cpp", b"", "a compiled AOTInductor library"),
        ("data/constants/custom_obj_0", b"", "a pickled object"),
        ("data/executorch/model.pte", b"", "which torch.export.save does not write"),
        ("code/__torch__.py", b"", "which torch.export.save does not write"),
        ("archive_version", b"1", "has archive version 1, and 0 is the one read here"),
        ("archive_format", b"pt3", "is no torch.export archive"),
        ("models/second.json", b"{}", "holds 2 models"),
        (PROGRAM, None, "holds 0 models"),
        (PROGRAM, b"{", "not readable JSON"),
        (PROGRAM, b"[" * 100_000, "not readable JSON"),
        (PROGRAM, b"[]", "no exported program"),
        (WEIGHTS, None, f"lacks '{WEIGHTS}'"),
        (WEIGHTS, b"{}", "its list of weights is unreadable"),
        ("data/weights/weight_0", None, "'weight' does not fit its stored bytes"),
        ("data/weights/weight_0", b"1234", "'weight' does not fit its stored bytes"),
        ("data/weights/weight_0", b"123", "no whole number of elements"),
    ],
)
def test_archive_is_refused_when_a_record_is(
    name: str, content: bytes | None, problem: str, path: Path
) -> None:
    """Foreign, of another version, missing or damaged."""
    assert problem in refused(rewritten(path, {name: content}))


@pytest.mark.parametrize(
    ("length", "problem"),
    [(1 << 40, "more than the limit"), (5, "does not fit"), (-1, "does not fit"), ("2", "does not fit")],
)
def test_archive_is_refused_when_a_weight_declares_another_length(
    length: object, problem: str, path: Path
) -> None:
    """Neither is memory taken for it nor the neighbour's bytes read."""

    def change(content: Any) -> None:
        content["config"]["weight"]["tensor_meta"]["sizes"][0] = {"as_int": length}

    assert problem in refused(changed(path, WEIGHTS, change))


def test_archive_is_refused_when_its_schema_is_of_the_future(path: Path) -> None:
    """Theirs and ours are named."""
    changed(path, PROGRAM, lambda content: content.update(schema_version={"major": 99, "minor": 1}))
    assert "has export schema 99, written by torch 2.13" in refused(path)


def test_archive_is_read_when_its_weights_are_in_the_old_layout(path: Path) -> None:
    """torch 2.8 kept them as one file of tensors."""
    weights = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    assert examine(rewritten(path, {"data/weights/model.pt": saved(weights)})) is Format.PT2


def test_archive_is_refused_when_it_is_of_torch_2_7(tmp_path: Path) -> None:
    """That layout cannot be read without unpickling."""
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_exported_program.json", "{}")
    assert "layout of torch 2.7 or older" in refused(path)


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        (FileLimits(max_entries=3), "entries, more than the limit of 3"),
        (FileLimits(max_unpacked_bytes=100), "bytes, more than the limit of 100"),
        (FileLimits(max_file_bytes=100), "bytes, more than the limit of 100"),
        (FileLimits(max_elements=5), "declares 2 x 3 elements for 'weight'"),
    ],
)
def test_archive_is_refused_when_it_is_beyond_a_limit(limits: FileLimits, problem: str, path: Path) -> None:
    """Limits are told with the number found."""
    with pytest.raises(ArtifactRefused, match=problem):
        examine(path, limits)
