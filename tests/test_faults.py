"""The count of faults recovered, and the exit code of a run that did not recover from all."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import FAULTS, Tally, fault_names

ROOT = Path(__file__).parents[1]


def test_tally_counts_a_fault_when_its_test_passed() -> None:
    """Only the call's success counts."""
    tally = Tally()
    tally.expect("a", ("F5",))
    tally.expect("b", ("F10",))
    for phase in ("setup", "call", "teardown"):
        tally.note("a", is_call=phase == "call", passed=True)
    assert str(tally) == "recovered 1 of 2"
    assert not tally.is_complete


@pytest.mark.parametrize("phase", ["setup", "call", "teardown"])
def test_tally_misses_a_fault_when_a_phase_failed(phase: str) -> None:
    """A test that broke down while tidying up has not recovered either."""
    tally = Tally()
    tally.expect("a", ("F5",))
    for each in ("setup", "call", "teardown"):
        tally.note("a", is_call=each == "call", passed=each != phase)
    assert tally.recovered == 0


def test_tally_is_complete_when_nothing_was_injected() -> None:
    """A run of a few quick tests is not failed for what it did not try."""
    assert Tally().is_complete


def test_marks_name_known_faults_when_read() -> None:
    """A mistyped fault is an error, not one fault less."""
    assert fault_names(["F5"]) == ("F5",)
    with pytest.raises(ValueError, match="F5, F6"):
        fault_names(["F55"])
    with pytest.raises(ValueError, match="not one of"):
        fault_names([])
    assert all(title and name.startswith("F") for name, title in FAULTS.items())


@pytest.mark.parametrize("processes", ["0", "2"])
@pytest.mark.parametrize(
    ("body", "last_line", "code"),
    [
        pytest.param("pass", "recovered 1 of 1", 0, id="passed"),
        pytest.param("assert False", "recovered 0 of 1", 1, id="failed"),
        pytest.param("pytest.skip('not today')", "recovered 0 of 1", 1, id="skipped"),
    ],
)
def test_run_ends_with_the_count_when_a_fault_was_injected(
    tmp_path: Path, body: str, last_line: str, code: int, processes: str
) -> None:
    """The last line says so, and the exit code is 0 only when all were recovered from; whoever ran them."""
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_one.py").write_text(
        f"import pytest\n\n@pytest.mark.fault('F5')\ndef test_one():\n    {body}\n"
    )
    settings = ("-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "-n", processes)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *settings, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stdout.splitlines()[-1] == last_line, run.stdout + run.stderr
    assert run.returncode == code
