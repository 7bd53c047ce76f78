"""Ended requests as packed numbers: what was added is what is taken, once."""

import numpy as np

from serving.batcher import Timing
from serving.core.model import VersionRef
from serving.telemetry.reel import Reel

REF = VersionRef("digits", "3")


def test_numbers_come_back_as_they_were_added() -> None:
    """Oldest first, times of executions in seconds, and the next turn finds only what came after."""
    reel = Reel(REF, "champion", "ok")
    reel.add(10.25, 0.5, 3, Timing(asked_ns=100, begun_ns=300, done_ns=1300, executed_rows=8))
    reel.add(11.5, 0.75, 1, None)
    ended = reel.take()
    assert ended is not None
    assert (ended.ref, ended.variant, ended.status, len(ended)) == (REF, "champion", "ok", 2)
    assert ended.times.tolist() == [10.25, 11.5]
    assert (ended.seconds.tolist(), ended.rows.tolist()) == ([0.5, 0.75], [3.0, 1.0])
    np.testing.assert_array_equal(ended.queue, [200e-9, np.nan])
    np.testing.assert_array_equal(ended.compute, [1000e-9, np.nan])
    np.testing.assert_array_equal(ended.executed_rows, [8.0, np.nan])
    assert reel.take() is None


def test_execution_is_told_once_when_many_share_it() -> None:
    """The others waited for it too, but did not begin it."""
    reel = Reel(REF, "champion", "ok")
    reel.add(1.0, 0.5, 1, Timing(0, 1000, 2000, leads=False))
    ended = reel.take()
    assert ended is not None
    assert ended.queue.tolist() == [1e-6]
    assert np.isnan(ended.compute).all()
    assert np.isnan(ended.executed_rows).all()


def test_times_are_not_negative_when_a_thread_stamped_late() -> None:
    """Begun before it was asked for is begun at once."""
    reel = Reel(REF, "champion", "ok")
    reel.add(1.0, 0.5, 1, Timing(asked_ns=5000, begun_ns=2000, done_ns=1000))
    ended = reel.take()
    assert ended is not None
    assert (ended.queue.tolist(), ended.compute.tolist()) == ([0.0], [0.0])


def test_seconds_are_told_apart() -> None:
    """A request belongs to the second it ended in."""
    reel = Reel(REF, "champion", "ok")
    for at in (7.0, 7.999, 8.0):
        reel.add(at, at, 1, None)
    ended = reel.take()
    assert ended is not None
    assert ended.of_second(7).seconds.tolist() == [7.0, 7.999]
    assert ended.of_second(8).seconds.tolist() == [8.0]
    assert len(ended.of_second(9)) == 0
