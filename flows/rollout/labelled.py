"""Whether a challenger is less often right, by the labels that came: paired where both versions answered.

Rows that both answered tell with far fewer labels; without enough of them, each version's own labels are
compared. Every declared slice is held to a limit of its own, at a level divided by their number, because
of many slices one looks worse by chance.
"""

from collections.abc import Iterator

from flows.rollout.evidence import Evidence
from flows.rollout.measurement import Measurement, Verdict
from flows.rollout.paired import Agreement, Errors, total
from flows.rollout.policy import JudgePolicy, MetricName
from flows.rollout.sequential import Count, compare, faults_of_challenger, is_worse
from flows.rollout.slices import Slices
from serving.core.scored import Scored
from serving.store.text import JsonValue

_LARGEST_RATIO = 1e12
# Because it is looked at again and again.
_STANDARD_ERRORS = 3


def measure(evidence: Evidence, policy: JudgePolicy, slices: Slices) -> Measurement:
    """The whole, or the worst slice where that is worse."""
    classes, errors = evidence.labelled.classes, evidence.labelled.errors
    if classes.rows >= policy.min_labels:
        whole = _agreed(classes, policy)
    elif errors.rows >= policy.min_labels:
        whole = _paired_errors(errors, policy)
    else:
        whole = _unpaired(evidence.champion_labels, evidence.challenger_labels, policy)
    found = [whole, *_sliced(evidence, policy, slices)]
    return next(
        (each for verdict in _SEVERITY for each in found if each.verdict is verdict),
        whole,
    )


# A slice without labels takes nothing from the verdict on the whole.
_SEVERITY = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.SUCCESS)


def is_less_right(past: Scored, now: Scored, policy: JudgePolicy) -> bool:
    """Whether labels say of a version that it is worse than the same or another one was."""
    return _unpaired(past, now, policy).verdict is Verdict.FAIL


def _measured(verdict: Verdict, reason: str, evidence: dict[str, JsonValue]) -> Measurement:
    return Measurement(MetricName.LABELS, verdict, reason, evidence)


def _agreed(found: Agreement, policy: JudgePolicy) -> Measurement:
    is_beyond = found.drop > policy.max_accuracy_drop and _is_lost(found, policy.error_alpha)
    return _measured(
        Verdict.FAIL if is_beyond else Verdict.SUCCESS,
        f"accuracy on {found.rows} rows that both answered: {_told(found)}",
        _numbers(found) | {"limit": policy.max_accuracy_drop},
    )


def _is_lost(found: Agreement, alpha: float) -> bool:
    """Whether more rows are lost than won, at whatever look: McNemar's question, by an exact e-value."""
    won, lost = Count(found.won, found.rows), Count(found.lost, found.rows)
    return faults_of_challenger(won, lost).is_worse(alpha)


def _told(found: Agreement) -> str:
    one, two = found.accuracies
    return f"champion {one:.3f}, challenger {two:.3f} ({found.lost} lost, {found.won} won)"


def _numbers(found: Agreement) -> dict[str, JsonValue]:
    one, two = found.accuracies
    return {
        "pairs": found.rows,
        "champion_accuracy": one,
        "challenger_accuracy": two,
        "lost": found.lost,
        "won": found.won,
    }


def _sliced(evidence: Evidence, policy: JudgePolicy, slices: Slices) -> Iterator[Measurement]:
    by_class = evidence.labelled.by_class
    for name, classes in slices.items():
        found = total(by_class[each] for each in set(classes) if each in by_class)
        yield _slice(name, found, policy, policy.error_alpha / len(slices))


def _slice(name: str, found: Agreement, policy: JudgePolicy, alpha: float) -> Measurement:
    numbers: dict[str, JsonValue] = {"slice": name, **_numbers(found), "limit": policy.max_slice_drop}
    is_beyond = found.drop > policy.max_slice_drop and _is_lost(found, alpha)
    if found.rows < policy.min_labels and not is_beyond:
        reason = (
            f"slice '{name}': {found.rows} labels of rows that both answered, {policy.min_labels} are needed"
        )
        return _measured(_missing(policy), reason, numbers)
    verdict = Verdict.FAIL if is_beyond else Verdict.SUCCESS
    return _measured(verdict, f"slice '{name}', accuracy on {found.rows} rows: {_told(found)}", numbers)


def _missing(policy: JudgePolicy) -> Verdict:
    """Labels that are not required may be missing; required ones are waited for."""
    return Verdict.INCONCLUSIVE if MetricName.LABELS in policy.required else Verdict.NOT_MEASURED


def _paired_errors(found: Errors, policy: JudgePolicy) -> Measurement:
    one, two = found.means
    told = f"mean error on {found.rows} rows that both answered: champion {one:.4g}, challenger {two:.4g}"
    return _judged_errors(one, two, found.standard_error, told, policy, {"pairs": found.rows})


def _unpaired(champion: Scored, challenger: Scored, policy: JudgePolicy) -> Measurement:
    """By each version's own labels; of classes by their share, of numbers by the mean error."""
    least = min(champion.labelled, challenger.labelled)
    counts: dict[str, JsonValue] = {
        "champion_labels": champion.labelled,
        "challenger_labels": challenger.labelled,
    }
    if least < policy.min_labels:
        verdict = _missing(policy) if least else Verdict.NOT_MEASURED
        return _measured(verdict, f"{least} labels of one side, {policy.min_labels} are needed", counts)
    if min(champion.classified, challenger.classified) >= policy.min_labels:
        return _accuracy(champion, challenger, policy)
    one, two = champion.mae or 0.0, challenger.mae or 0.0
    spread = sum(_variance_of_mean(side) for side in (champion, challenger)) ** 0.5
    told = f"mean error: champion {one:.4g}, challenger {two:.4g}"
    return _judged_errors(one, two, spread, told, policy, counts)


def _accuracy(champion: Scored, challenger: Scored, policy: JudgePolicy) -> Measurement:
    one = Count(champion.classified - champion.right, champion.classified)
    two = Count(challenger.classified - challenger.right, challenger.classified)
    tau = max(policy.max_accuracy_drop, policy.error_tau)
    seen = compare(one, two, tau)
    is_beyond = seen.difference > policy.max_accuracy_drop and is_worse(one, two, tau, policy.error_alpha)
    return _measured(
        Verdict.FAIL if is_beyond else Verdict.SUCCESS,
        f"wrong: champion {one}, challenger {two}",
        {
            "champion_accuracy": champion.accuracy,
            "challenger_accuracy": challenger.accuracy,
            "likelihood_ratio": min(seen.likelihood_ratio, _LARGEST_RATIO),
            "limit": policy.max_accuracy_drop,
        },
    )


def _judged_errors(
    one: float, two: float, spread: float, told: str, policy: JudgePolicy, counts: dict[str, JsonValue]
) -> Measurement:
    is_beyond = two > policy.max_error_growth_ratio * one and two - one > _STANDARD_ERRORS * spread
    numbers: dict[str, JsonValue] = {
        "champion_mae": one,
        "challenger_mae": two,
        "standard_error": spread,
        "limit": policy.max_error_growth_ratio,
    }
    return _measured(Verdict.FAIL if is_beyond else Verdict.SUCCESS, told, counts | numbers)


def _variance_of_mean(side: Scored) -> float:
    mean = side.mae or 0.0
    return max(0.0, side.squared / side.measured - mean**2) / side.measured if side.measured else 0.0
