"""Overrides: a local file that is never silently empty, and a store that knows which one holds."""

import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from serving.core.errors import StoreUnusable
from serving.store import audit, overrides
from serving.store.overrides import Override, OverrideFile

FIRST = Override(
    id="1", model="digits", role="champion", not_version="4", answer_with="2", actor="serving",
    reason="answers fail", laid_at=datetime(2026, 1, 1, tzinfo=UTC),
)  # fmt: skip
LATER = replace(FIRST, id="2", not_version="5", laid_at=FIRST.laid_at + timedelta(seconds=1))


@pytest.fixture
def file(tmp_path: Path) -> OverrideFile:
    return OverrideFile(tmp_path / "home" / "overrides.json")


def test_file_is_empty_when_never_written(file: OverrideFile) -> None:
    """No file is no override."""
    assert file.read() == []


def test_file_gives_back_what_was_written_when_read(file: OverrideFile) -> None:
    """Also nothing to answer with, and also the empty list."""
    written = [FIRST, replace(LATER, answer_with=None)]
    file.write(written)
    assert OverrideFile(file.path).read() == written
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    file.write([])
    assert file.read() == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"overrides": [{"id": "1", "mod', id="torn"),
        pytest.param(b"[]", id="another-shape"),
        pytest.param(b"{}", id="no-list"),
        pytest.param(b'{"overrides": [{"id": "1"}]}', id="field-missing"),
        pytest.param(b'{"overrides": [7]}', id="not-an-override"),
        pytest.param(b"\xff\xfe\x00", id="not-text"),
    ],
)
def test_file_is_refused_when_damaged(file: OverrideFile, content: bytes) -> None:
    """Forgetting an ejection would put the bad version back: a person decides."""
    file.write([FIRST])
    file.path.write_bytes(content)
    with pytest.raises(
        StoreUnusable, match=r"overrides\.json is damaged .*; put back a copy of it, or remove"
    ):
        file.read()


def test_save_makes_it_active_and_audits_once_when_repeated(engine: Engine) -> None:
    """Saving is retried until the store answers."""
    assert overrides.save(engine, FIRST)
    assert overrides.save(engine, FIRST)
    assert overrides.active(engine) == [FIRST]
    [row] = audit.tail(engine, action="override")
    assert (row.entry.model, row.entry.version, row.entry.actor) == ("digits", "4", "serving")
    assert row.entry.details == {
        "step": "laid",
        "role": "champion",
        "answer_with": "2",
        "reason": "answers fail",
        "override_id": "1",
    }


def test_save_replaces_when_a_later_one_is_laid_for_the_role(engine: Engine) -> None:
    """One override per model and role holds; other roles and models have their own."""
    challenger = replace(FIRST, id="3", role="challenger")
    for override in (FIRST, challenger, LATER):
        assert overrides.save(engine, override)
    assert overrides.active(engine) == [challenger, LATER]


def test_save_changes_nothing_when_it_comes_after_a_later_one(engine: Engine) -> None:
    """A replica whose store call was delayed does not undo a newer decision."""
    overrides.save(engine, LATER)
    assert not overrides.save(engine, FIRST)
    assert overrides.active(engine) == [LATER]


def test_save_does_not_revive_when_it_was_ended(engine: Engine) -> None:
    """A retry that arrives after the end is too late."""
    overrides.save(engine, FIRST)
    overrides.end(engine, FIRST, "the alias moved on")
    assert not overrides.save(engine, FIRST)
    assert overrides.active(engine) == []
    assert overrides.save(engine, LATER)
    assert overrides.active(engine) == [LATER]


def test_end_is_done_and_audited_once_when_repeated(engine: Engine) -> None:
    """Every replica may end what it saw end."""
    overrides.save(engine, FIRST)
    ended_at = FIRST.laid_at + timedelta(minutes=1)
    assert overrides.end(engine, FIRST, "the alias moved on", now=ended_at)
    assert not overrides.end(engine, FIRST, "the alias moved on")
    _, row = audit.tail(engine, action="override")
    assert (row.entry.details["step"], row.entry.details["reason"]) == ("ended", "the alias moved on")
    assert row.entry.at == ended_at


def test_end_leaves_a_later_override_when_it_names_the_former(engine: Engine) -> None:
    """The same version may be ejected twice."""
    overrides.save(engine, FIRST)
    again = replace(LATER, not_version=FIRST.not_version)
    overrides.save(engine, again)
    assert not overrides.end(engine, FIRST, "promoted by hand")
    assert overrides.active(engine) == [again]


def test_end_reports_false_when_it_was_never_saved(engine: Engine) -> None:
    """Nothing to end."""
    assert not overrides.end(engine, FIRST, "the alias moved on")
    assert audit.tail(engine) == []
