"""The records of the traffic, written by one process while another reads."""

from pathlib import Path

from flows.cli.demo.records import Record, RecordFile, parse

ANSWERED = Record(1.5, 1.6, version="2", variant="champion", matches=True, status=200)
REFUSED = Record(1.7, 1.8, version=None, variant=None, matches=False, status=None, error="no\nserver")


def test_record_is_the_same_when_read_back() -> None:
    """One line each, line breaks in an error included."""
    for record in (ANSWERED, REFUSED):
        assert record.line().count("\n") == 1
        assert parse(record.line()) == record


def test_news_are_whole_lines_when_a_line_is_still_being_written(tmp_path: Path) -> None:
    """Half a line waits for its other half; nothing is read twice."""
    path = tmp_path / "records.jsonl"
    half = len(REFUSED.line()) // 2
    path.write_text(ANSWERED.line() + REFUSED.line()[:half])
    file = RecordFile(path)
    assert file.news() == [ANSWERED]
    assert file.news() == []
    with path.open("a") as stream:
        stream.write(REFUSED.line()[half:])
    assert file.news() == [REFUSED]
