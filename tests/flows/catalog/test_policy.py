"""Limits as they come in: in their own types, in one sentence where they cannot be used."""

import pytest

from flows.catalog.policy import Doubt, ValidationPolicy, limits, policy_of, within_budget


@pytest.mark.parametrize(
    ("given", "typed"),
    [
        pytest.param({"max_accuracy_drop": "0.05"}, {"max_accuracy_drop": 0.05}, id="text"),
        pytest.param({"max_accuracy_drop": 0.05}, {"max_accuracy_drop": 0.05}, id="number"),
        pytest.param({"replay_rows": "200"}, {"replay_rows": 200}, id="whole number"),
        pytest.param({"allow_signature_change": "true"}, {"allow_signature_change": True}, id="truth"),
        pytest.param({"when_uncertain": "failed"}, {"when_uncertain": "failed"}, id="choice"),
        pytest.param({"max_p95_ms": None, "min_accuracy": " ", "replay_rows": "None"}, {}, id="blanks"),
    ],
)
def test_limits_have_their_types_when_given_as_anything(
    given: dict[str, object], typed: dict[str, object]
) -> None:
    """Events and forms bring text, the command line numbers; blanks are defaults."""
    found = limits(given)
    assert found == typed
    assert {name: type(value) for name, value in found.items()} == {n: type(v) for n, v in typed.items()}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        pytest.param({"max_accuracy_drop": "much"}, "max_accuracy_drop: Input should be a", id="word"),
        pytest.param({"max_accuracy_drop": 1.5}, "a share between 0 and 1, not 1.5", id="beyond a share"),
        pytest.param({"max_p95_ms": -1}, "max_p95_ms must be a number of at least 0", id="negative"),
        pytest.param({"max_p95_ms": "nan"}, "max_p95_ms must be a number", id="NaN"),
        pytest.param({"when_uncertain": "maybe"}, "when_uncertain: Input should be", id="no choice"),
        pytest.param({"replay_rows": "2.5"}, "replay_rows: Input should be a valid integer", id="half a row"),
        pytest.param({"confidence": 0.2}, "confidence is a share of at least 0.5", id="less than even"),
        pytest.param({"max_batch_rows": 0}, "max_batch_rows must be at least 1", id="no batch"),
        pytest.param({"max_speed": 3}, "max_speed is no limit of a validation", id="unknown"),
    ],
)
def test_limits_are_refused_in_one_sentence_when_unusable(given: dict[str, object], why: str) -> None:
    """Which one, and what it must be."""
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        limits(given)
    assert why in str(refused.value)


def test_policy_takes_its_own_limits_when_others_stand_beside_them() -> None:
    """A rollout carries the limits of other checks, too."""
    found = policy_of({"max_accuracy_drop": 0.02, "when_uncertain": "warning", "benchmark_seconds": 3})
    assert found == ValidationPolicy(max_accuracy_drop=0.02, when_uncertain=Doubt.WARNING)


@pytest.mark.parametrize(("given", "limit"), [(None, 2048), (4096, 2048), (100, 100)])
def test_budget_of_serving_limits_memory_when_no_lower_limit_is_given(
    given: float | None, limit: float
) -> None:
    """A version that serving could never hold is refused before it is promoted."""
    assert within_budget(ValidationPolicy(max_memory_mb=given), 2048).max_memory_mb == limit
