"""Drift checks over logs that serving really wrote, odd columns included."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from flows.drift.check import Checked, Limits, check
from flows.drift.render import markdown, rows
from flows.drift.verdict import ColumnState, Verdict
from serving.core.model import VersionRef
from tests.logged import Array, floats, write_log

LIMITS = Limits(rows=600, minimum_rows=100)


def _check(folder: Path, reference: dict[str, Array] | None = None, **limits: Any) -> Checked:
    chosen = Limits(**limits) if limits else LIMITS
    return check(folder, "digits", version=None, reference=reference, limits=chosen)


def _states(checked: Checked) -> dict[str, ColumnState]:
    return {column.column: column.state for column in checked.report.columns}


@pytest.fixture(scope="module")
def digits() -> tuple[Array, Array]:
    """Scans as (count, 1, 8, 8) float32 in 0 to 1: traffic, and a held-out set."""
    images, labels = load_digits(return_X_y=True)
    scaled = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    traffic, held_out = train_test_split(scaled, test_size=0.25, random_state=7, stratify=labels)
    return traffic, held_out


def test_no_drift_is_found_when_traffic_is_like_the_set(tmp_path: Path, digits: tuple[Array, Array]) -> None:
    """Real scans against other real scans; outputs have no reference and are named as such."""
    traffic, held_out = digits
    write_log(tmp_path, {"image": traffic[:600], "logits": floats(600, 2)})
    report = _check(tmp_path, {"image": held_out}).report
    assert (report.verdict, report.message) == (Verdict.NO_DRIFT, "none of 64 measured columns drifted")
    assert report.not_compared == ("logits.0", "logits.1")


def test_drift_is_named_when_digits_are_inverted(tmp_path: Path, digits: tuple[Array, Array]) -> None:
    """Most pixels drift, the border ones furthest and upwards; the pages can be written."""
    traffic, held_out = digits
    write_log(tmp_path / "log", {"image": np.concatenate([traffic[:600], 1 - traffic[:600]])})
    checked = _check(tmp_path / "log", {"image": held_out})
    report = checked.report
    assert report.verdict is Verdict.DRIFT
    assert len(report.drifted) > 50
    by_name = {column.column: column for column in report.columns}
    assert by_name["image.0"].distance == pytest.approx(1.0)
    assert by_name["image.0"].shift == pytest.approx(1.0)
    assert by_name["image.3"].shift is not None
    assert by_name["image.3"].shift < 0
    assert "| image.0 | 1 | +1 |" in markdown(report)
    assert rows(report)[0]["state"] == "drifted"
    assert checked.save_html is not None
    checked.save_html(tmp_path / "deep" / "page.html")
    assert (tmp_path / "deep" / "page.html").stat().st_size > 100_000


def test_outputs_are_compared_when_the_log_is_its_own_reference(tmp_path: Path) -> None:
    """Without a declared set, the first rows are the reference; a short log is split in the middle."""
    y = np.concatenate([floats(300, 1), floats(300, 1) + 1])
    write_log(tmp_path, {"x": floats(600, 1), "y": y})
    report = _check(tmp_path).report
    assert _states(Checked(report, None)) == {"x.0": ColumnState.STABLE, "y.0": ColumnState.DRIFTED}
    assert report.reference is not None
    assert report.current is not None
    assert (report.reference.rows, report.current.rows) == (300, 300)
    assert report.reference.until is not None
    assert report.current.since is not None
    assert report.reference.until <= report.current.since


def test_only_one_version_is_read_when_named(tmp_path: Path) -> None:
    """Another version's rows do not count."""
    write_log(tmp_path, {"x": floats(300, 1)})
    write_log(tmp_path, {"x": floats(300, 1) + 1}, ref=VersionRef("digits", "3"))
    reference = {"x": floats(300, 1)}
    verdicts = [
        check(tmp_path, "digits", version=version, reference=reference, limits=LIMITS).report.verdict
        for version in ("2", "3", None)
    ]
    assert verdicts == [Verdict.NO_DRIFT, Verdict.DRIFT, Verdict.DRIFT]


@pytest.mark.parametrize("count", [0, 30])
def test_data_is_insufficient_when_rows_are_few(tmp_path: Path, count: int) -> None:
    """Too few rows are a verdict of their own, with the numbers."""
    if count:
        write_log(tmp_path, {"x": floats(count, 1)})
    report = _check(tmp_path, {"x": floats(500, 1)}).report
    assert report.verdict is Verdict.INSUFFICIENT_DATA
    assert f"{count} rows in the current window and 500 in the reference, 100 needed" in report.message


@pytest.mark.parametrize("count", [300, 1200], ids=["small windows", "large windows"])
def test_report_survives_when_columns_are_odd(tmp_path: Path, count: int) -> None:
    """Empty, infinite, constant and missing columns keep their place, the others their verdict."""
    rng = np.random.default_rng(7)
    fine = rng.normal(size=(count, 1)).astype(np.float32)
    some = fine.copy()
    some[::3] = np.inf
    nothing = np.full((count, 1), np.nan, np.float32)
    infinite, still = np.full((count, 1), np.inf, np.float32), np.ones((count, 1), np.float32)
    words = rng.choice(np.array(["a", "b", "c"], object), (count, 1))
    serial = np.array([[f"id{place}"] for place in range(count)], object)
    reference: dict[str, Array] = {
        "fine": rng.normal(size=(count, 1)).astype(np.float32),
        "moved": fine - 2,
        "all_nan": fine,
        "all_inf": fine,
        "some_inf": fine,
        "still": still,
        "was_still": still,
        "stuck": fine,
        "stepped": still,
        "nan_before": nothing,
        "gone": fine,
        "word": words,
        "other_word": words,
        "became_text": fine,
        "serial": serial,
        "flag": fine > 0,
        "flipped": fine > 1,
    }
    current = reference | {
        "fine": fine,
        "moved": fine,
        "all_nan": nothing,
        "all_inf": infinite,
        "some_inf": some,
        "was_still": fine,
        "stuck": still * 0,
        "stepped": still * 2,
        "other_word": np.where(words == "a", np.array("z", object), words),
        "became_text": words,
        "flipped": fine < 1,
        "new": fine,
    }
    del current["gone"]
    write_log(tmp_path, current)
    checked = _check(tmp_path, reference, rows=count)
    states = {name.removesuffix(".0"): state for name, state in _states(checked).items()}
    assert {name for name, state in states.items() if state is ColumnState.NOT_MEASURED} == {
        *("all_nan", "all_inf", "nan_before", "gone", "became_text", "serial")
    }
    assert {name for name, state in states.items() if state is ColumnState.DRIFTED} == {
        *("moved", "was_still", "stuck", "stepped", "other_word", "flipped")
    }
    notes = {column.column: column.note for column in checked.report.columns}
    assert notes["gone.0"] == "not in the current window"
    assert notes["all_nan.0"] == "no usable value in the current window"
    assert notes["some_inf.0"] == f"{count // 3} of {count} values are empty or not finite"
    assert checked.report.not_compared == ("new.0",)


def test_nothing_is_measured_when_no_column_is_shared(tmp_path: Path) -> None:
    """A set of another model is no verdict about this one."""
    write_log(tmp_path, {"x": floats(300, 1)})
    report = _check(tmp_path, {"other": floats(300, 2)}).report
    assert report.verdict is Verdict.NOT_MEASURED
    assert report.message == "none of 2 columns could be measured"


def test_large_windows_are_thinned_when_compared(tmp_path: Path) -> None:
    """Both sides are cut to the sample size; the verdict stands."""
    write_log(tmp_path, {"x": floats(1500, 1) + 1})
    checked = _check(tmp_path, {"x": floats(1500, 1)}, rows=1500, sample_rows=1000)
    report = checked.report
    assert report.current is not None
    assert report.current.rows == 1000
    assert (report.verdict, report.columns[0].method) == (Verdict.DRIFT, "wasserstein")
