"""What a pass found, for people: registered first, nothing foreign becomes markup."""

from pathlib import Path

from flows.catalog.intake import COLUMNS, markdown, rows
from flows.catalog.outcome import Outcome, Result
from flows.catalog.scan import ScanReport

REFUSED = Outcome(path=Path("/m/a.onnx"), result=Result.REFUSED, reason="it is <b>bad</b> | so | `bad`")
REGISTERED = Outcome(
    path=Path("/m/b.onnx"),
    result=Result.REGISTERED,
    model="digits",
    version="3",
    format="onnx",
    notes=("recorded", "passed"),
)
WAITING = Outcome(path=Path("/m/c.onnx"), result=Result.PENDING, reason="it has to stay as it is")
REPORT = ScanReport([REFUSED, WAITING, REGISTERED], unchanged=7, missing=(Path("/gone"),))


def test_rows_tell_what_was_registered_first() -> None:
    """Then what was refused with its reason, what waits, and how many were left alone."""
    found = rows(REPORT)
    assert [row["result"] for row in found] == ["registered", "refused", "still changing", "7 unchanged"]
    assert [row["version"] for row in found] == ["3", "", "", ""]
    assert found[0]["said"] == "recorded; passed"
    assert all(tuple(row) == COLUMNS for row in found)


def test_sentence_counts_what_came_of_the_files() -> None:
    assert REPORT.sentence == "1 registered, 1 refused, 1 still changing, 7 unchanged; no folder /gone"
    assert ScanReport().sentence == "0 unchanged"


def test_page_shows_foreign_text_as_it_stands() -> None:
    """A reason quotes names out of files."""
    page = markdown(REPORT)
    assert "it is &lt;b>bad&lt;/b> \\| so \\| 'bad'" in page
    assert "**Ended early:** MLflow is away" in markdown(ScanReport(interrupted="MLflow is away"))
