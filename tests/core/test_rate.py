"""The token bucket: a second's worth at once, then as many as flow in."""

from hypothesis import given
from hypothesis import strategies as st

from serving.core.rate import full, take


def test_take_lets_a_seconds_worth_pass_when_the_bucket_is_full() -> None:
    """And tells the next one how long to wait."""
    bucket = full(2.0, now=0.0)
    waits = []
    for _ in range(3):
        bucket, wait_seconds = take(bucket, 2.0, 0.0)
        waits.append(wait_seconds)
    assert waits == [0.0, 0.0, 0.5]
    assert take(bucket, 2.0, 0.49)[1] > 0
    assert take(bucket, 2.0, 0.5)[1] == 0


def test_take_lets_one_pass_when_the_rate_is_below_one_a_second() -> None:
    """A slow caller is not shut out altogether."""
    bucket, wait_seconds = take(full(0.1, now=0.0), 0.1, 0.0)
    assert wait_seconds == 0
    assert take(bucket, 0.1, 0.0)[1] == 10.0


@given(
    st.floats(0.1, 100),
    st.lists(st.floats(0, 3), min_size=1, max_size=200),
)
def test_take_never_lets_more_pass_than_flow_in(rate: float, gaps: list[float]) -> None:
    """However callers time themselves, at most the capacity and the inflow."""
    now, passed, bucket = 0.0, 0, full(rate, 0.0)
    capacity = bucket.tokens
    for gap in gaps:
        now += gap
        bucket, wait_seconds = take(bucket, rate, now)
        passed += wait_seconds == 0
    assert passed <= capacity + now * rate + 1e-6
