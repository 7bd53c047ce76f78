"""What to tell of a rollout that went on since it was looked at last: pure, one line per step."""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from serving.store.rollouts import Phase, Rollout

_AT_PERCENT = re.compile(r"^at \d+ %: ")


def one_line(text: str, characters: int = 200) -> str:
    """A reason in one line, its end left out where it goes on for long."""
    return textwrap.shorten(text, characters, placeholder=" ...")


def news(before: Rollout | None, now: Rollout) -> list[str]:
    """Lines on everything that is in `now` and was not in `before`."""
    return [*_of_checks(before, now), *_of_stages(before, now)]


def present(rollout: Rollout) -> str:
    """Where it is at the moment, in a few words."""
    status, named = rollout.status, f"version {rollout.version}"
    if rollout.phase is not Phase.RESTORE_POINT or status is None or rollout.spec is None:
        return f"{named}: {rollout.phase.replace('_', ' ')}"
    percent = rollout.spec["stages"][status["stage"]]
    return f"{named} at {percent} %: {status['step']}, {status['observed_seconds']:.0f} s observed"


def evidence_line(metrics: Sequence[Mapping[str, Any]]) -> str:
    """The numbers behind a judgement, metric by metric; of one without numbers its own sentence."""
    return "; ".join(_TELL[each["name"]](each) for each in metrics if each["name"] in _TELL)


def failed_metrics(rollout: Rollout) -> list[str]:
    """Which metrics failed in the last judgement."""
    metrics = (rollout.status or {}).get("metrics", ())
    return [str(each["name"]) for each in metrics if each["verdict"] == "fail"]


def _of_checks(before: Rollout | None, now: Rollout) -> Iterator[str]:
    known, evidence = (before.evidence if before is not None else None) or {}, now.evidence or {}
    if "checks" in evidence and "checks" not in known:
        yield f"validation: {_checks(evidence)}"
    if "benchmark" in evidence and "benchmark" not in known:
        yield f"benchmark:  {_checks(evidence['benchmark'])}"
    if now.phase is Phase.APPLIED and (before is None or before.phase is not Phase.APPLIED):
        yield f"alias champion moved; {one_line(str(evidence.get('applied', 'applied')))}"


def _checks(judged: Mapping[str, Any]) -> str:
    passed = sum(check.get("verdict") == "passed" for check in judged["checks"])
    if judged["passed"]:
        return f"{passed} checks passed"
    return one_line(f"failed: {judged['reason']}")


def _of_stages(before: Rollout | None, now: Rollout) -> Iterator[str]:
    known, status = (before.status if before is not None else None) or {}, now.status
    if status is None or now.spec is None:
        return
    for record in status["passed"][len(known.get("passed", ())) :]:
        yield (
            f"{record['percent']:>3} %: {record['verdict']} after {record['observed_seconds']:.0f} s; "
            f"{evidence_line(record['metrics'])}"
        )
    share = f"{now.spec['stages'][status['stage']]:>3} %"
    if (status["step"], status["stage"]) != (known.get("step"), known.get("stage")):
        yield from _of_step(share, status, known, now.version)
    was_open = before is None or not before.state.is_terminal
    if was_open and now.state.is_terminal and status["step"] not in ("passed", "ending"):
        # Serving acted before the rollout came to say so.
        yield f"{share}: {now.state.replace('_', ' ')}, {one_line(now.reason, 240)}"


def _of_step(share: str, status: Mapping[str, Any], known: Mapping[str, Any], version: str) -> Iterator[str]:
    if status["step"] == "observe" and known.get("step") != "held":
        yield f"{share}: every worker sends this share of the traffic to version {version}"
    elif status["step"] in ("held", "paused", "approval"):
        yield f"{share}: {status['step']}, {one_line(status['reason'])}"
    elif status["step"] == "ending":
        yield f"{share}: {status['end'].replace('_', ' ')}, {one_line(_bare(status['reason']), 240)}"
        if telling := [each for each in status["metrics"] if each["verdict"] == "fail"]:
            yield f"       {evidence_line(telling)}"


def _bare(reason: str) -> str:
    """A reason without the percent that the line begins with."""
    return _AT_PERCENT.sub("", reason)


def _latency(metric: Mapping[str, Any]) -> str:
    found = metric["evidence"]
    if "champion_ms" not in found:
        return f"latency: {metric['message']}"
    one, two = found["champion_ms"], found["challenger_ms"]
    ratio = f"x{two / one:.1f}, " if one else ""
    return f"p95 {two:.1f} ms against {one:.1f} ms ({ratio}{two - one:+.1f} ms)"


def _predictions(metric: Mapping[str, Any]) -> str:
    found = metric["evidence"]
    if "differing_ratio" not in found:
        return f"predictions: {metric['message']}"
    return f"{found['differing_ratio']:.0%} of labels differ in {found['pairs']} pairs"


def _errors(metric: Mapping[str, Any]) -> str:
    found = metric["evidence"]
    return (
        f"errors {found['challenger_faults']} of {found['challenger_requests']} "
        f"against {found['champion_faults']} of {found['champion_requests']}"
    )


_TELL = {"error_rate": _errors, "latency": _latency, "predictions": _predictions}
