"""The traffic's process: steady without a server, and gone when the demonstration is."""

from pathlib import Path
from time import monotonic

import numpy as np

from flows.cli.demo.live import RATE_PER_SECOND, flowing
from flows.cli.demo.reference import Reference, References
from flows.cli.demo.traffic import INVERTED_ROWS
from flows.cli.waiting import wait_until
from tests.flows.conftest import SettingsFactory
from tests.mlflow_server import free_port

_DEADLINE_SECONDS = 60.0
_REQUESTS = 20


def saved_references(folder: Path) -> References:
    references = References(folder)
    for path in (references.plain, references.inverted, references.mixed):
        rows = INVERTED_ROWS
        Reference(np.zeros((rows, 1, 8, 8), np.float32), {"1": np.zeros((rows, 10), np.float32)}).save(path)
    return references


def test_traffic_is_steady_and_ends_when_nobody_answers(
    tmp_path: Path, make_settings: SettingsFactory
) -> None:
    """An open loop sends on whatever becomes of its requests, and stops in order when told to."""
    references = saved_references(tmp_path)
    settings = make_settings(serving_url=f"http://127.0.0.1:{free_port()}")
    before = monotonic()
    with flowing(settings, references, tmp_path / "traffic.log") as traffic:
        assert wait_until(lambda: len(traffic.records()) >= _REQUESTS, _DEADLINE_SECONDS)
        records = traffic.finish()
    assert not any(record.is_answered for record in records)
    assert {record.status for record in records} == {None}
    started = sorted(record.started for record in records)
    assert before < started[0] < started[-1] < monotonic()
    assert started[_REQUESTS - 1] - started[0] >= 0.9 * (_REQUESTS - 1) / RATE_PER_SECOND


def test_traffic_asks_for_inverted_scans_when_told_to(tmp_path: Path, make_settings: SettingsFactory) -> None:
    """Several in each request, and one again afterwards."""
    settings = make_settings(serving_url=f"http://127.0.0.1:{free_port()}")
    with flowing(settings, saved_references(tmp_path), tmp_path / "traffic.log") as traffic:
        assert wait_until(lambda: bool(traffic.records()), _DEADLINE_SECONDS)
        assert {record.rows for record in traffic.records()} == {1}
        traffic.turn_to("inverted")
        assert wait_until(lambda: traffic.records()[-1].rows == INVERTED_ROWS, _DEADLINE_SECONDS)
        traffic.turn_to("plain")
        assert wait_until(lambda: traffic.records()[-1].rows == 1, _DEADLINE_SECONDS)
