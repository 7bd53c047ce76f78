"""Durable files: whole or untouched, private, and one writer at a time."""

import stat
import threading
from pathlib import Path

import pytest

from serving.store.durable import append_line, exclusive, write_atomically


def test_write_atomically_replaces_the_content_when_the_file_exists(tmp_path: Path) -> None:
    """New content, asked mode, nothing left beside it; folders are made."""
    path = tmp_path / "new" / "file"
    write_atomically(path, b"old")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_atomically(path, b"new", mode=0o644)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_write_atomically_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    """A target that cannot be replaced stays, without a stray file beside it."""
    path = tmp_path / "folder"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomically_shows_whole_content_when_threads_write_at_once(tmp_path: Path) -> None:
    """A reader never meets a mixture."""
    path = tmp_path / "file"
    contents = [bytes([number]) * 10_000 for number in range(4)]
    write_atomically(path, contents[0])

    def work(content: bytes) -> None:
        for _ in range(10):
            write_atomically(path, content)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_bytes() in contents


def test_append_line_starts_a_new_line_when_the_last_one_is_torn(tmp_path: Path) -> None:
    """What a crash left does not swallow the next line."""
    path = tmp_path / "lines"
    append_line(path, b"one")
    with path.open("ab") as file:
        file.write(b"tor")
    append_line(path, b"two")
    assert path.read_bytes() == b"one\ntor\ntwo\n"


def test_exclusive_says_no_when_another_holds_the_lock_and_it_shall_not_wait(tmp_path: Path) -> None:
    """Free again as soon as the holder leaves."""
    lock = tmp_path / "locks" / "lock"
    with exclusive(lock) as first, exclusive(lock, wait=False) as second:
        assert (first, second) == (True, False)
    with exclusive(lock, wait=False) as third:
        assert third
