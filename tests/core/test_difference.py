"""Differences between two versions: what counts as changed, and what is merely unknown."""

import pytest

from serving.core.difference import Area, Difference, Row, Value, VersionFacts, difference


def between(area: Area, before: dict[str, Value] | None, after: dict[str, Value] | None) -> Difference:
    old = VersionFacts("1", {} if before is None else {area: before})
    new = VersionFacts("2", {} if after is None else {area: after})
    return difference(old, new)


@pytest.mark.parametrize(
    ("area", "name", "before", "after", "changed"),
    [
        pytest.param(Area.SIGNATURE, "input x", "FP32 [-1, 3]", "FP32 [-1, 3]", False, id="same signature"),
        pytest.param(Area.SIGNATURE, "input x", "FP32 [-1, 3]", "FP32 [-1, 4]", True, id="other signature"),
        pytest.param(Area.SIGNATURE, "input x", "FP32 [-1, 3]", None, True, id="input gone"),
        pytest.param(Area.SIZE, "size_bytes", 1000, 1001, True, id="one byte"),
        pytest.param(Area.SIZE, "size_bytes", 1000, None, False, id="size unknown of one side"),
        pytest.param(Area.SIZE, "memory_mb", 100.0, 109.9, False, id="memory within noise"),
        pytest.param(Area.SIZE, "memory_mb", 100.0, 110.1, True, id="memory beyond noise"),
        pytest.param(Area.LATENCY, "p95_ms", 10.0, 11.0, False, id="latency at the edge of noise"),
        pytest.param(Area.LATENCY, "p95_ms", 10.0, 11.01, True, id="slower"),
        pytest.param(Area.LATENCY, "p95_ms", 11.01, 10.0, True, id="quicker"),
        pytest.param(Area.LATENCY, "p95_ms", 0.0, 0.1, True, id="no ratio to zero"),
        pytest.param(Area.LATENCY, "p99_ms", None, 10.0, False, id="quantile measured once only"),
        pytest.param(Area.METRICS, "accuracy", 0.9, 0.9001, True, id="accuracy"),
        pytest.param(Area.METRICS, "f1", 0.9, None, False, id="score measured once only"),
        pytest.param(Area.PARAMETERS, "epochs", "3", None, True, id="parameter gone"),
        pytest.param(Area.TAGS, "team", None, "ml", True, id="new tag"),
    ],
)
def test_value_is_changed_when_more_than_noise_or_ignorance_explains_it(
    area: Area, name: str, before: Value | None, after: Value | None, changed: bool
) -> None:
    """Both sides of each border."""
    assert Row(area, name, before, after).is_changed is changed


def test_operator_is_there_zero_times_when_one_side_lacks_it() -> None:
    """A count is always known once the operators are."""
    found = between(Area.OPERATORS, {"Conv": 2, "Relu": 1}, {"Conv": 2, "Gelu": 1})
    assert found.changed == (
        Row(Area.OPERATORS, "Relu", 1, 0),
        Row(Area.OPERATORS, "Gelu", 0, 1),
    )


def test_area_is_unknown_when_one_side_was_never_looked_at() -> None:
    """It names the side; nothing of it counts as changed."""
    found = between(Area.LATENCY, {"p50_ms": 3.0}, None)
    assert found.changed == ()
    assert found.unknown[Area.LATENCY] == ("2",)
    assert found.unknown[Area.SIZE] == ("1", "2")


@pytest.mark.parametrize(
    ("before", "after", "ratio"),
    [(2, 3, 1.5), (0, 3, None), (2, None, None), ("2", 3, None), (None, 3, None)],
)
def test_ratio_is_given_when_both_are_numbers(
    before: Value | None, after: Value | None, ratio: float | None
) -> None:
    row = Row(Area.SIZE, "size_bytes", before, after)
    assert row.ratio == ratio
    assert row.as_json()["ratio"] == ratio
