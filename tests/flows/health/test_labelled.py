"""The functional level by labels: a drop counts once it is large and no accident."""

from datetime import UTC, datetime

import pytest

from flows.health.labelled import Labelled, graded, worse
from serving.core.health import LevelReport, Status
from serving.core.scored import Scored

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def classes(right: int, of: int) -> Scored:
    return Scored(classified=of, right=right)


def numbers(rmse: float) -> Scored:
    return Scored(measured=100, absolute=100 * rmse, squared=100 * rmse * rmse)


@pytest.mark.parametrize(
    ("now", "first", "status"),
    [
        pytest.param(classes(95, 100), None, Status.HEALTHY, id="first look"),
        pytest.param(classes(950, 1000), classes(960, 1000), Status.HEALTHY, id="no accident is ruled out"),
        pytest.param(classes(9500, 10000), classes(9700, 10000), Status.WARNING, id="small and sure"),
        pytest.param(classes(9000, 10000), classes(9700, 10000), Status.CRITICAL, id="large and sure"),
        pytest.param(classes(43, 50), classes(48, 50), Status.HEALTHY, id="large and an accident maybe"),
        pytest.param(classes(20, 50), classes(48, 50), Status.CRITICAL, id="few labels suffice for a crash"),
        pytest.param(classes(79, 100), None, Status.WARNING, id="below the floor"),
        pytest.param(classes(80, 100), None, Status.HEALTHY, id="at the floor"),
        pytest.param(classes(100, 100), classes(100, 100), Status.HEALTHY, id="always right"),
        pytest.param(numbers(1.0), None, Status.HEALTHY, id="numbers, first look"),
        pytest.param(numbers(1.1), numbers(1.0), Status.HEALTHY, id="numbers, grown a tenth"),
        pytest.param(numbers(1.2), numbers(1.0), Status.WARNING, id="numbers, grown more"),
        pytest.param(numbers(1.6), numbers(1.0), Status.CRITICAL, id="numbers, grown by far"),
        pytest.param(numbers(0.1), numbers(0.0), Status.HEALTHY, id="numbers, nothing to compare with"),
    ],
)
def test_level_follows_what_labels_say(now: Scored, first: Scored | None, status: Status) -> None:
    """Against the version's own first labels, and one absolute floor."""
    report = graded(Labelled(now, 0.25, first), 0.8, NOW)
    assert report.status is status, report.message
    assert "25% of all" in report.message


def test_worse_of_two_reports_decides_and_both_are_told() -> None:
    """A declared set and labels may disagree."""
    well, ill = LevelReport(Status.HEALTHY, "a", NOW), LevelReport(Status.CRITICAL, "b", NOW)
    assert worse(well, ill) == LevelReport(Status.CRITICAL, "a; b", NOW)
    assert worse(ill, well) == LevelReport(Status.CRITICAL, "b; a", NOW)
