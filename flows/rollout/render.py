"""A promotion's outcome as people read it: markdown for Prefect and MLflow, rows for tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from flows.rollout.outcome import Outcome
from flows.rollout.policy import shown
from serving.store.rollouts import Rollout


def outcome_markdown(outcome: Outcome, model: str) -> str:
    """The whole report."""
    lines = [f"# {model}: {outcome.verdict.replace('_', ' ')}", "", outcome.reason, ""]
    lines += [f"- warning: {warning}" for warning in outcome.warnings]
    if outcome.rollout is not None:
        lines += _facts(outcome.rollout)
        lines += _stages(outcome.rollout)
    if rows := checks_of(outcome):
        lines += ["", "| check | verdict | what was seen |", "|---|---|---|"]
        lines += [f"| {row['check']} | {row['verdict']} | {_cell(row['message'])} |" for row in rows]
    return "\n".join(lines)


def stages_of(rollout: Rollout) -> list[dict[str, str]]:
    """One row per stage and metric of a staged rollout, the unfinished stage last."""
    status, spec = rollout.status, rollout.spec
    if status is None or spec is None:
        return []
    rows = [row for stage in status["passed"] for row in _measured(stage["percent"], stage["metrics"])]
    is_unfinished = len(status["passed"]) <= status["stage"]
    return rows + (_measured(spec["stages"][status["stage"]], status["metrics"]) if is_unfinished else [])


def _measured(percent: int, metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [{"stage": shown(percent), **_row(metric)} for metric in metrics]


def _stages(rollout: Rollout) -> list[str]:
    """What each stage was judged by, and the limits it was judged under."""
    rows = stages_of(rollout)
    if not rows:
        return []
    lines = ["", "| stage | metric | verdict | what was seen |", "|---|---|---|---|"]
    lines += [
        f"| {row['stage']} | {row['check']} | {row['verdict']} | {_cell(row['message'])} |" for row in rows
    ]
    spec = rollout.spec or {}
    limits = ", ".join(f"{name} {value}" for name, value in spec["policy"].items())
    return [*lines, "", f"Limits: {limits}."]


def checks_of(outcome: Outcome) -> list[dict[str, str]]:
    """One row per check of the validation, then of the benchmark; none where there was none."""
    evidence = (outcome.rollout.evidence if outcome.rollout is not None else None) or {}
    benchmark = evidence.get("benchmark") or {}
    measured = [_row(check) | {"check": f"benchmark: {_named(check)}"} for check in _checks(benchmark)]
    return [*(_row(check) for check in _checks(evidence)), *measured]


def _checks(judged: Mapping[str, Any]) -> list[Any]:
    checks = judged.get("checks", [])
    return checks if isinstance(checks, list) else []


def _facts(rollout: Rollout) -> list[str]:
    point = rollout.restore_point or {}
    applied = (rollout.evidence or {}).get("applied")
    facts = [
        ("version", rollout.version),
        ("champion before", point.get("champion") or "none"),
        ("asked for by", rollout.requested_by),
        ("rollout", rollout.id),
        ("began", rollout.created_at.isoformat(timespec="seconds")),
        ("ended", rollout.finished_at.isoformat(timespec="seconds") if rollout.finished_at else "still open"),
        ("workers", applied),
    ]
    return [f"- {name}: {value}" for name, value in facts if value is not None]


def _row(check: Mapping[str, Any]) -> dict[str, str]:
    verdict = str(check.get("verdict", "")).replace("_", " ")
    return {
        "check": _named(check),
        "verdict": verdict,
        "message": str(check.get("message", "")),
    }


def _named(check: Mapping[str, Any]) -> str:
    return str(check.get("name", "")).replace("_", " ")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
