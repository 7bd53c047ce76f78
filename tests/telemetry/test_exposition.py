"""The numbers of several workers as those of one server: what adds up, and what does not."""

import math

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from serving.telemetry.exposition import Family, counts, text, together, told


def worker(requests: int, *, stale: int = 0, age: float = math.nan) -> list[Family]:
    registry = CollectorRegistry()
    Counter("answers", "Answers.", ("model",), registry=registry).labels("m").inc(requests)
    seconds = Histogram("seconds", "Time.", buckets=(1.0,), registry=registry)
    for _ in range(requests):
        seconds.observe(0.5)
    Gauge("held_bytes", "Memory.", registry=registry).set(10)
    Gauge("stale", "State.", registry=registry).set(stale)
    Gauge("age_seconds", "Age.", registry=registry).set(age)
    return told(registry)


def read(families: list[Family]) -> dict[str, float]:
    samples = [s for f in text_string_to_metric_families(text(families).decode()) for s in f.samples]
    return {s.name + s.labels.get("le", ""): s.value for s in samples}


def test_numbers_are_the_servers_when_workers_told_theirs() -> None:
    """Counts and amounts add up; a state is the worst, an age the highest that is known."""
    found = read(together([worker(2, stale=1), worker(3, age=7.0)]))
    assert found["answers_total"] == 5
    assert found["seconds_bucket1.0"] == found["seconds_count"] == 5
    assert found["seconds_sum"] == pytest.approx(2.5)
    assert (found["held_bytes"], found["stale"], found["age_seconds"]) == (20, 1, 7.0)


def test_counts_outlive_a_worker_when_it_ended() -> None:
    """What it measured does not."""
    found = read(together([counts(worker(2, stale=1)), worker(3)]))
    assert (found["answers_total"], found["held_bytes"], found["stale"]) == (5, 10, 0)


def test_text_keeps_its_words_when_rendered() -> None:
    """Help and type, as one worker alone would tell them."""
    lines = text(together([worker(1), worker(1)])).decode().splitlines()
    assert "# HELP answers_total Answers." in lines
    assert "# TYPE seconds histogram" in lines
