"""Last exits out of the supervisor's log."""

from datetime import datetime

from flows.cli.exits import last_exits

LOG = """\
2026-01-02 03:04:05,678 WARN exited: mlflow (exit status 1; not expected)
2026-01-02 04:00:00,000 INFO supervisord started with pid 7
2026-01-02 04:00:01,000 INFO spawned: 'serving' with pid 8
2026-01-02 04:00:02,000 WARN exited: serving (exit status 3; not expected)
2026-01-02 04:00:03,000 WARN exited: serving (terminated by SIGKILL; not expected)
"""


def test_last_exits_hold_newest_when_a_part_ended_twice() -> None:
    """The newest end of each part counts, with its time and offset; those of an earlier run do not."""
    found = last_exits(LOG)
    assert list(found) == ["serving"]
    how, _, at = found["serving"].partition(" at ")
    assert how == "terminated by SIGKILL"
    assert datetime.fromisoformat(at).tzinfo is not None


def test_last_exits_are_none_when_log_is_empty() -> None:
    """Nothing ended."""
    assert last_exits("") == {}
