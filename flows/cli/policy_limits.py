"""Limits of a model's policies as people type them, `LIMIT=VALUE`, each checked by whoever will go by it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields

from pydantic import ValidationError

from flows.catalog import limits as benchmark
from flows.catalog import policy as validation
from flows.cli.errors import CommandFailed
from flows.rollout import policy as rollout
from flows.rollout.policy import JudgePolicy, Kind, Usual
from serving.store.policies import HEALTH, JUDGE, PROMOTION
from serving.store.text import JsonValue

NAMES = (PROMOTION, JUDGE, HEALTH)
FLOOR = "min_functional_accuracy"

_VALIDATION = tuple(limit.name for limit in fields(validation.ValidationPolicy))
_BENCHMARK = ("min_throughput",)
_LIMITS: Mapping[str, Sequence[str]] = {
    PROMOTION: (*_VALIDATION, *_BENCHMARK, *rollout.PLAN),
    JUDGE: tuple(JudgePolicy.model_fields),
    HEALTH: (FLOOR,),
}


def read_limits(assignments: Sequence[str]) -> dict[str, dict[str, JsonValue]]:
    """Each limit in its own type, by policy. Raises `CommandFailed` in one sentence."""
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for each in assignments:
        name, sign, value = each.partition("=")
        policy, _, limit = name.strip().rpartition(".")
        known = _LIMITS.get(policy or PROMOTION, ())
        if not sign or not value.strip():
            raise CommandFailed(f"'{each}' gives no value", next_step="write LIMIT=VALUE")
        if limit not in known:
            step = f"known are {', '.join(known)}" if known else f"parts are {', '.join(NAMES)}"
            raise CommandFailed(f"there is no limit '{name}'", next_step=step)
        texts[policy or PROMOTION][limit] = value.strip()
    try:
        return {policy: _TYPED[policy](given) for policy, given in texts.items()}
    except ValueError as error:
        raise CommandFailed(f"a limit cannot be kept: {error}") from None


def whole(kept: Mapping[str, Mapping[str, JsonValue]], usual: Usual, kind: Kind | None) -> None:
    """Raises `CommandFailed` where limits clash that are well each on its own."""
    try:
        validation.policy_of(kept.get(PROMOTION, {}))
        rollout.plan_of(kept.get(PROMOTION, {}), usual, kind, kept.get(JUDGE, {}))
    except ValueError as error:
        raise CommandFailed(f"these limits cannot be kept: {error}") from None


def _promotion(given: Mapping[str, str]) -> dict[str, JsonValue]:
    def named(names: Sequence[str]) -> dict[str, str]:
        return {name: given[name] for name in names if name in given}

    return {
        **validation.limits(named(_VALIDATION)),
        **benchmark.limits(named(_BENCHMARK)),
        **rollout.limits(named(rollout.PLAN)),
    }


def _judge(given: Mapping[str, str]) -> dict[str, JsonValue]:
    texts = {name: value.split(",") if name == "required" else value for name, value in given.items()}
    usual = rollout.read_policy(None).model_dump()
    try:
        policy = JudgePolicy.model_validate({**usual, **texts}, strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return {name: policy.model_dump()[name] for name in given}


def _health(given: Mapping[str, str]) -> dict[str, JsonValue]:
    try:
        floor = float(given[FLOOR])
    except ValueError:
        raise ValueError(f"{FLOOR} must be a number, not '{given[FLOOR]}'") from None
    if not 0 <= floor <= 1:
        raise ValueError(f"{FLOOR} is a share between 0 and 1, not {floor:g}")
    return {FLOOR: floor}


_TYPED = {PROMOTION: _promotion, JUDGE: _judge, HEALTH: _health}
