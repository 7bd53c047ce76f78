"""The demonstration's folder: emptied at the start, one demonstration at a time."""

from pathlib import Path

import pytest

from flows.cli.demo.ground import cleared
from flows.cli.errors import CommandFailed


def test_folder_is_empty_when_an_earlier_demo_left_files(tmp_path: Path) -> None:
    """Nothing of the last time is found again; what a link points at is not touched."""
    root, precious = tmp_path / "demo", tmp_path / "precious"
    (root / "logs").mkdir(parents=True)
    (root / "logs" / "serving.log").write_text("old")
    (root / "signalbox.db").write_text("old")
    precious.mkdir()
    (precious / "kept").write_text("kept")
    (root / "link").symlink_to(precious)
    with cleared(root):
        assert [entry.name for entry in root.iterdir()] == ["demo.lock"]
    assert (precious / "kept").read_text() == "kept"


def test_second_demo_is_refused_when_one_plays(tmp_path: Path) -> None:
    """It must not pull the ground from under the first; afterwards the place is free again."""
    with cleared(tmp_path / "demo"):
        (tmp_path / "demo" / "signalbox.db").write_text("in use")
        with pytest.raises(CommandFailed, match="a demo already plays"), cleared(tmp_path / "demo"):
            pass
        assert (tmp_path / "demo" / "signalbox.db").read_text() == "in use"
    with cleared(tmp_path / "demo"):
        pass


def test_folder_is_refused_in_a_sentence_when_it_cannot_be_made(tmp_path: Path) -> None:
    """A file in its place is named."""
    (tmp_path / "demo").write_text("a file")
    with pytest.raises(CommandFailed, match=r"demo cannot be used: File exists"), cleared(tmp_path / "demo"):
        pass
