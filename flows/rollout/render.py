"""A promotion's outcome as people read it: markdown for Prefect and MLflow, rows for tables."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.policy import shown
from serving.store.rollouts import Rollout


def outcome_markdown(outcome: Outcome, model: str, picture: str | None = None) -> str:
    """The whole report. `picture` is the address at which a browser sees the plot of the stages."""
    lines = [f"# {model}: {outcome.verdict.replace('_', ' ')}", "", sentence(outcome), ""]
    lines += [f"- warning: {warning}" for warning in outcome.warnings]
    if outcome.rollout is not None:
        lines += _facts(outcome.rollout)
        lines += _stages(outcome.rollout, picture)
    if rows := checks_of(outcome):
        lines += ["", "## Checks before any traffic", ""]
        lines += ["| check | verdict | what was seen |", "|---|---|---|"]
        lines += [f"| {row['check']} | {row['verdict']} | {_cell(row['message'])} |" for row in rows]
    return "\n".join(lines) + "\n"


def sentence(outcome: Outcome) -> str:
    """How it ended, for a reader who knows nothing else of it."""
    if outcome.verdict is Verdict.PROMOTED and outcome.rollout is not None:
        return f"Version {outcome.rollout.version} answers, {outcome.reason}."
    return outcome.reason


def judged_stages(rollout: Rollout) -> list[tuple[int, Sequence[Mapping[str, Any]]]]:
    """Percent and metrics of each stage that was judged, the unfinished one last."""
    status, spec = rollout.status, rollout.spec
    if status is None or spec is None:
        return []
    stages = [(stage["percent"], stage["metrics"]) for stage in status["passed"]]
    is_unfinished = len(status["passed"]) <= status["stage"]
    if is_unfinished and status["metrics"]:
        stages.append((spec["stages"][status["stage"]], status["metrics"]))
    return stages


def stages_of(rollout: Rollout) -> list[dict[str, str]]:
    """One row per stage and metric of a staged rollout, the unfinished stage last."""
    return [
        {"stage": shown(percent), **_row(metric)}
        for percent, metrics in judged_stages(rollout)
        for metric in metrics
    ]


def _stages(rollout: Rollout, picture: str | None) -> list[str]:
    """What each stage was judged by, and the limits it was judged under."""
    rows = stages_of(rollout)
    if not rows:
        return []
    lines = ["", "## Stages", ""]
    if picture is not None:
        lines += [f"![Requests, errors and latency of both versions by stage]({picture})", ""]
    lines += ["| stage | metric | verdict | what was seen |", "|---|---|---|---|"]
    lines += [
        f"| {row['stage']} | {row['check']} | {row['verdict']} | {_cell(row['message'])} |" for row in rows
    ]
    lines += ["", *(f"- {sentence}" for sentence in _lengths(rollout))]
    limits = (rollout.spec or {})["policy"].items()
    lines += ["", "## Limits", "", "| limit | value |", "|---|---|"]
    return [*lines, *(f"| {_words(name)} | {_value(value)} |" for name, value in limits)]


def _lengths(rollout: Rollout) -> list[str]:
    """How long each stage that was passed was observed."""
    passed = (rollout.status or {})["passed"]
    return [
        f"{shown(stage['percent'])}: {stage['verdict']} after {stage['observed_seconds']:g} s, "
        f"from {_second(stage['since'])} to {_second(stage['until'])}"
        for stage in passed
    ]


def _second(moment: str) -> str:
    return datetime.fromisoformat(moment).isoformat(timespec="seconds")


def _value(value: object) -> str:
    return ", ".join(_words(str(each)) for each in value) if isinstance(value, list) else str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")


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
        ("approved by", (rollout.status or {}).get("approved_by")),
        ("rollout", rollout.id),
        ("began", rollout.created_at.isoformat(timespec="seconds")),
        ("ended", rollout.finished_at.isoformat(timespec="seconds") if rollout.finished_at else "still open"),
        ("workers", applied),
    ]
    return [f"- {name}: {value}" for name, value in facts if value is not None]


def _row(check: Mapping[str, Any]) -> dict[str, str]:
    verdict = _words(str(check.get("verdict", "")))
    return {
        "check": _named(check),
        "verdict": verdict,
        "message": str(check.get("message", "")),
    }


def _named(check: Mapping[str, Any]) -> str:
    return _words(str(check.get("name", "")))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
