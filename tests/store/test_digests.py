"""Digests on record: the first one seen stays."""

import threading

from sqlalchemy import Engine

from serving.store import digests


def test_recorded_is_none_when_the_version_was_never_loaded(engine: Engine) -> None:
    """Unknown is not wrong."""
    assert digests.recorded(engine, "digits", "1", "models:/m-1") is None


def test_record_keeps_the_first_when_another_comes(engine: Engine) -> None:
    """A payload that changed is told by the difference."""
    assert digests.record(engine, "digits", "1", "models:/m-1", "first") == "first"
    assert digests.record(engine, "digits", "1", "models:/m-1", "second") == "first"
    assert digests.recorded(engine, "digits", "1", "models:/m-1") == "first"


def test_record_is_separate_when_the_source_differs(engine: Engine) -> None:
    """A version deleted and registered again under its number is another payload."""
    digests.record(engine, "digits", "1", "models:/m-1", "first")
    assert digests.record(engine, "digits", "1", "models:/m-2", "second") == "second"


def test_record_agrees_when_replicas_load_at_once(engine: Engine) -> None:
    """All of them hold the same digest afterwards."""
    results: list[str] = []

    def work(digest: str) -> None:
        results.append(digests.record(engine, "digits", "1", "s", digest))

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert set(results) == {digests.recorded(engine, "digits", "1", "s")}
