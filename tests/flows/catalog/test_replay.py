"""Recent inputs, from a Parquet log as serving writes it, to both sides again."""

from pathlib import Path
from random import Random

import numpy as np
import pytest

from flows.catalog.facts import Facts, Replay, Side
from flows.catalog.logged import NothingLogged, recent_inputs
from flows.catalog.replay import logged_inputs, replay
from flows.catalog.robustness import replay as judged
from flows.catalog.subject import Subject, bring_in
from flows.catalog.verdict import Verdict
from serving.core.model import TensorSpec
from serving.telemetry.columns import Privacy
from serving.telemetry.metrics import Metrics
from serving.telemetry.parts import PartFolder
from tests.flows.catalog.folders import (
    QUICK,
    Array,
    one_hot_rows,
    onnx_row_sum,
    onnx_shifted_classes,
)
from tests.logged import DIGITS, ROOMY, ask, inference_log, part_folder, write_log
from tests.models import onnx_echo, onnx_nan, onnx_raises_on_negative

SPEC = (TensorSpec("x", "FP32", (-1, 3)),)
ROWS = one_hot_rows(40) + 1


def ignore(side: Side, doing: str) -> None:
    """Nobody waits for these steps."""


def subject(side: Side, root: Path) -> Subject:
    found = bring_in(side, root, "1", 1, None)
    assert isinstance(found, Subject)
    return found


def logged(tmp_path: Path, rows: Array, count: int = 100) -> Path:
    write_log(tmp_path / "log", {"x": rows})
    return recent_inputs(tmp_path / "log", "digits", count, tmp_path / "logged.npz")


def replayed(
    tmp_path: Path, rows: Array, candidate: Path, champion: Path | None, kind: str | None = None
) -> Replay:
    inputs = logged_inputs(logged(tmp_path, rows), SPEC, is_batched=True)
    assert not isinstance(inputs, str)
    rival = subject(Side.CHAMPION, champion) if champion else None
    ours = subject(Side.CANDIDATE, candidate)
    return replay(inputs, ours, rival, model_type=kind, budget_seconds=20.0, begin=ignore)


def verdict(found: Replay) -> Verdict:
    return judged(Facts(replay=found), QUICK).verdict


def test_rows_come_back_as_they_were_asked_when_read(tmp_path: Path) -> None:
    """In their shape and type, the newest ones, oldest first."""
    path = logged(tmp_path, ROWS, count=10)
    found = logged_inputs(path, SPEC, is_batched=True)
    assert not isinstance(found, str)
    assert found["x"].dtype == np.float32
    assert (found["x"] == ROWS[-10:]).all()


def test_large_tensors_come_back_when_they_were_sampled_whole(tmp_path: Path) -> None:
    """Rows of more than 256 elements are logged as summaries, some of them in full besides."""
    large = np.random.default_rng(1).random((6, 3, 100), dtype=np.float32)
    log = inference_log(part_folder(tmp_path / "log", raw_ratio=1.0), Metrics())
    log.start()
    for at in range(6):
        ask(log, {"x": large[at : at + 1]})
    log.close()
    path = recent_inputs(tmp_path / "log", "digits", 100, tmp_path / "logged.npz")
    found = logged_inputs(path, (TensorSpec("x", "FP32", (-1, 3, 100)),), is_batched=True)
    assert not isinstance(found, str)
    assert (found["x"] == large).all()


def test_refused_rows_are_left_out_when_read(tmp_path: Path) -> None:
    """What no version could answer then is no demand on this one."""
    log = inference_log(part_folder(tmp_path / "log"), Metrics())
    log.start()
    for at, status in enumerate(("ok", "invalid", "failed", "ok")):
        log.record(DIGITS, f"{at}", "champion", status, 0.002, {"x": ROWS[at : at + 1]}, {}, True)
    log.close()
    path = recent_inputs(tmp_path / "log", "digits", 10, tmp_path / "logged.npz")
    found = logged_inputs(path, SPEC, is_batched=True)
    assert not isinstance(found, str)
    assert (found["x"] == ROWS[[0, 3]]).all()


@pytest.mark.parametrize(
    ("dims", "shape"), [((-1, 3), (40, 3)), ((-1, 1, 3), (40, 1, 3)), ((-1, -1), (40, 3)), (None, (40, 1, 3))]
)
def test_shape_is_the_models_when_the_log_is_flat(
    tmp_path: Path, dims: tuple[int, ...] | None, shape: tuple[int, ...]
) -> None:
    """One free axis is filled by what is there; with nothing declared a row is a batch of one."""
    found = logged_inputs(
        logged(tmp_path, ROWS), (TensorSpec("x", "FP32", dims),), is_batched=dims is not None
    )
    assert not isinstance(found, str)
    assert found["x"].shape == shape


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        pytest.param(TensorSpec("z", "FP32", (-1, 3)), "does not hold input 'z'", id="name"),
        pytest.param(TensorSpec("x", "FP32", (-1, 4)), "has 3 elements per row", id="width"),
        pytest.param(TensorSpec("x", "FP32", (-1, -1, -1)), "has 3 elements per row", id="two free axes"),
        pytest.param(TensorSpec("x", "BYTES", (-1, 3)), "may be hashed", id="numbers for text"),
    ],
)
def test_log_that_does_not_fit_is_told_when_read(tmp_path: Path, spec: TensorSpec, why: str) -> None:
    """One sentence that names the input."""
    found = logged_inputs(logged(tmp_path, ROWS), (spec,), is_batched=True)
    assert isinstance(found, str)
    assert why in found


def test_hidden_columns_are_told_when_the_log_keeps_them_private(tmp_path: Path) -> None:
    """Dropped and hashed inputs cannot be asked again."""
    for privacy, why in (
        (Privacy(drop=("x.1",)), "does not hold input 'x' whole"),
        (Privacy(hash=("x.*",)), "may be hashed"),
    ):
        folder = tmp_path / why.split()[0]
        parts = PartFolder(folder, "worker-1", ROOMY, privacy, raw_ratio=0.0, chance=Random(7))
        log = inference_log(parts, Metrics())
        log.start()
        ask(log, {"x": ROWS[:1]}, {"y": ROWS[:1]})
        log.close()
        path = recent_inputs(folder, "digits", 10, tmp_path / "logged.npz")
        found = logged_inputs(path, SPEC, is_batched=True)
        assert isinstance(found, str)
        assert why in found


def test_nothing_is_replayed_when_nothing_was_logged(tmp_path: Path) -> None:
    """The reason names the model."""
    with pytest.raises(NothingLogged, match="holds no rows of 'digits'"):
        recent_inputs(tmp_path, "digits", 10, tmp_path / "logged.npz")


def test_equal_version_agrees_when_replayed(tmp_path: Path) -> None:
    """Every row, alike."""
    echo = onnx_echo(tmp_path / "echo")
    found = replayed(tmp_path, ROWS, echo, echo)
    assert (found.rows, found.agreement, found.compared) == (40, 1.0, 40)
    assert verdict(found) is Verdict.PASSED
    assert verdict(replayed(tmp_path / "alone", ROWS, echo, None)) is Verdict.PASSED


def test_other_classes_warn_when_replayed(tmp_path: Path) -> None:
    """Without labels nobody knows who is right."""
    found = replayed(tmp_path, ROWS, onnx_shifted_classes(tmp_path / "other"), onnx_echo(tmp_path / "echo"))
    assert found.agreement == 0.0
    assert verdict(found) is Verdict.WARNING


def test_shifted_predictions_fail_when_replayed(tmp_path: Path) -> None:
    """By more than half of what the champion predicts."""
    one, two = onnx_row_sum(tmp_path / "one"), onnx_row_sum(tmp_path / "two", 1.6)
    found = replayed(tmp_path, ROWS, two, one, "predictor")
    assert found.shift == pytest.approx(0.6, rel=1e-4)
    assert verdict(found) is Verdict.FAILED


def test_rows_are_counted_when_the_candidate_raises_on_some(tmp_path: Path) -> None:
    """A batch that raises is asked again row by row, so that its good rows count."""
    rows = ROWS.copy()
    rows[5] = -1
    bad, good = onnx_raises_on_negative(tmp_path / "bad"), onnx_echo(tmp_path / "echo")
    found = replayed(tmp_path, rows, bad, good)
    assert (found.rows, found.raised, found.champion_raised, found.compared) == (40, 1, 0, 39)
    assert verdict(found) is Verdict.FAILED
    both = replayed(tmp_path / "both", rows, bad, bad)
    assert (both.raised, both.champion_raised, verdict(both)) == (0, 1, Verdict.WARNING)


def test_rows_are_counted_when_answers_are_not_finite(tmp_path: Path) -> None:
    """Logged inputs are real: finite outputs are required."""
    rows = ROWS.copy()
    rows[[3, 35]] = 0.5
    found = replayed(tmp_path, rows, onnx_nan(tmp_path / "nan"), onnx_echo(tmp_path / "echo"))
    assert found.non_finite == 2
    assert verdict(found) is Verdict.FAILED
