"""The traffic's process: steady without a server, and gone when the demonstration is."""

from pathlib import Path
from time import monotonic

import numpy as np

from flows.cli.demo.live import RATE_PER_SECOND, flowing
from flows.cli.demo.reference import Reference
from flows.cli.waiting import wait_until
from tests.flows.conftest import SettingsFactory
from tests.mlflow_server import free_port

_DEADLINE_SECONDS = 60.0
_REQUESTS = 20


def test_traffic_is_steady_and_ends_when_nobody_answers(
    tmp_path: Path, make_settings: SettingsFactory
) -> None:
    """An open loop sends on whatever becomes of its requests, and stops in order when told to."""
    reference = tmp_path / "reference.npz"
    Reference(np.zeros((2, 1, 8, 8), np.float32), {"1": np.zeros((2, 10), np.float32)}).save(reference)
    settings = make_settings(serving_url=f"http://127.0.0.1:{free_port()}")
    before = monotonic()
    with flowing(settings, reference, tmp_path / "traffic.log") as traffic:
        assert wait_until(lambda: len(traffic.records()) >= _REQUESTS, _DEADLINE_SECONDS)
        records = traffic.finish()
    assert not any(record.is_answered for record in records)
    assert {record.status for record in records} == {None}
    started = sorted(record.started for record in records)
    assert before < started[0] < started[-1] < monotonic()
    assert started[_REQUESTS - 1] - started[0] >= 0.9 * (_REQUESTS - 1) / RATE_PER_SECOND
