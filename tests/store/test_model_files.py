"""What the scan notes of model files: kept whole, one row per path, whatever the path is called."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from serving.store import model_files
from serving.store.model_files import ModelFile, State, key_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FILE = ModelFile(
    path="/models/digits.onnx",
    members=("digits.onnx.data",),
    attached=("sets/digits.npz",),
    fingerprint="f" * 64,
    since=NOW,
    state=State.REGISTERED,
    source_digest="a" * 64,
    side_digest="b" * 64,
    model="digits",
    version="3",
    reason=None,
    side={"author": "me", "metrics": {"accuracy": 0.5}},
    attempt="1/abc",
    missing_since=NOW + timedelta(days=1),
)


def test_file_is_read_back_when_put(engine: Engine) -> None:
    """Every field survives."""
    model_files.put_all(engine, [FILE], NOW)
    assert model_files.known(engine) == {FILE.path: FILE}
    assert model_files.get(engine, FILE.path) == FILE


def test_file_is_replaced_when_put_again(engine: Engine) -> None:
    """A path has one row; what it was before is not kept."""
    changed = replace(FILE, state=State.REFUSED, reason="it is empty", version=None, side=None)
    model_files.put_all(engine, [FILE, changed], NOW)
    assert model_files.known(engine) == {FILE.path: changed}


def test_file_is_gone_when_forgotten(engine: Engine) -> None:
    other = replace(FILE, path="/models/other.onnx")
    model_files.put_all(engine, [FILE, other], NOW)
    model_files.forget(engine, [FILE.path])
    assert model_files.known(engine) == {other.path: other}
    assert model_files.get(engine, FILE.path) is None


def test_key_is_valid_text_of_bounded_length_when_the_path_is_strange(engine: Engine) -> None:
    """A name that is no UTF-8, or longer than any index takes, still has a row of its own."""
    undecodable = b"/models/\xff.onnx".decode("utf-8", "surrogateescape")
    long = "/models/" + "d" * 2000
    paths = [undecodable, f"{long}/1.onnx", f"{long}/2.onnx"]
    model_files.put_all(engine, [replace(FILE, path=path) for path in paths], NOW)
    keys = [key_of(path) for path in paths]
    assert model_files.known(engine).keys() == set(keys)
    assert all(len(key) <= 1024 and key.encode() for key in keys)
    assert all(model_files.get(engine, path) is not None for path in paths)
