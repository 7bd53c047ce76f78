"""One worker leads, and another as soon as it has ended."""

from pathlib import Path

from serving.fleet.lead import Lead


def test_one_leads_when_several_ask(tmp_path: Path) -> None:
    """Until it closes, as the kernel does for one that dies."""
    one, other = Lead(tmp_path / "lead.lock"), Lead(tmp_path / "lead.lock")
    assert (one.is_mine(), other.is_mine(), one.is_mine()) == (True, False, True)
    one.close()
    assert other.is_mine()
    other.close()


def test_only_worker_leads_when_there_are_no_others() -> None:
    """Without a file."""
    assert Lead(None).is_mine()
