"""Which version had to answer, as the acts go on."""

import math

import pytest

from flows.cli.demo.periods import Periods
from flows.cli.demo.verdict import Period


def test_each_period_ends_where_the_next_begins_when_a_version_is_tried_out() -> None:
    """An open one of an earlier act would call every answer of a later act wrong."""
    periods = Periods()
    periods.settle("1", 1.0)
    periods.share("2", 2.0)
    periods.settle("2", 3.0)
    periods.share("5", 4.0)
    periods.settle("2", 5.0)
    assert list(periods) == [
        Period("1", 1.0, 2.0),
        Period("1", 2.0, 3.0, beside="2"),
        Period("2", 3.0, 4.0),
        Period("2", 4.0, 5.0, beside="5"),
        Period("2", 5.0),
    ]
    assert periods.last.until == math.inf


@pytest.mark.parametrize(
    ("at", "until"),
    [
        pytest.param(3.0, 3.0, id="earlier"),
        pytest.param(4.0, 4.0, id="at the same moment"),
        pytest.param(6.0, 4.0, id="after it was released"),
    ],
)
def test_period_is_not_prolonged_when_it_was_released(at: float, until: float) -> None:
    """Between the release and the next answer nobody is due."""
    periods = Periods()
    periods.release(0.5)
    periods.settle("1", 1.0)
    periods.release(4.0)
    periods.settle("2", at)
    assert next(iter(periods)) == Period("1", 1.0, until)
