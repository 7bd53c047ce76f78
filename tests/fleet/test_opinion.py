"""The health of a whole server: the worst that any worker says of each model."""

from typing import Any

from serving.fleet.opinion import overall, together


def entry(model: str, status: str, *advice: str) -> dict[str, Any]:
    level = {"status": status, "message": f"{model} is {status}", "checked_at": None}
    return {
        "model": model,
        "version": "1",
        "alias": "champion",
        "status": status,
        "levels": {"basic": level},
        "recommendations": list(advice),
    }


def test_worst_opinion_counts_when_workers_differ() -> None:
    """With its reason; advice is told once."""
    [told] = together([entry("a", "healthy", "x")], [entry("a", "critical", "x", "y"), entry("a", "warning")])
    assert told["status"] == "critical"
    assert told["levels"]["basic"]["message"] == "a is critical"
    assert told["recommendations"] == ["x", "y"]
    assert overall([told, entry("b", "healthy")]) == "critical"


def test_models_of_others_are_told_when_this_worker_does_not_follow_them_yet() -> None:
    """In the order of their names."""
    told = together([entry("b", "healthy")], [entry("a", "unknown")])
    assert [one["model"] for one in told] == ["a", "b"]
    assert overall(told) == "unknown"
    assert overall([]) == "healthy"
