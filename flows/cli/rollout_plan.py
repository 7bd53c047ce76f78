"""`signalbox promote --dry-run`: by which stages and limits a version would be judged; changes nothing."""

from collections.abc import Mapping

from flows.cli.console import print_json, print_table, say
from flows.cli.errors import CommandFailed
from flows.rollout.policy import Spec, shown
from flows.rollout.promotion import Asked, spec_of
from serving.core.model import Alias, VersionRef
from serving.store.registry import Registry
from serving.store.text import JsonValue


def print_plan(
    asked: Asked, registry: Registry, kept: Mapping[str, Mapping[str, JsonValue]], *, as_json: bool
) -> None:
    """`kept` are the model's own policies by name. Raises `NotServed` for a version that does not exist."""
    version = registry.version(VersionRef(asked.model, asked.version or "")).ref.version
    model = registry.registered_model(asked.model)
    try:
        spec = spec_of(asked, model, kept)
    except ValueError as error:
        raise CommandFailed(f"the rollout cannot be planned: {error}") from None
    champion = model.aliases.get(Alias.CHAMPION)
    if as_json:
        told = spec.as_json() if spec is not None else None
        print_json({"model": asked.model, "version": version, "champion": champion, "plan": told})
        return
    say(f"{asked.model}: version {version} in the place of {champion or 'nothing'}, {asked.strategy}")
    if spec is None or champion is None:
        say("validated, benchmarked and made champion at once; there are no stages")
        return
    _print_stages(spec)


def _print_stages(spec: Spec) -> None:
    say(f"judged as {spec.kind or 'its answers look'}")
    gate = spec.approve_before
    rows = [
        (
            shown(percent),
            f"{spec.stage_seconds:g} s",
            f"{spec.deadline_seconds:g} s",
            "approval first" if gate is not None and percent >= gate else "",
        )
        for percent in spec.percents
    ]
    print_table(("stage", "at least", "held after", "gate"), rows, empty="no stages")
    limits = spec.policy.model_dump()
    print_table(("limit", "value"), [(name, _shown(value)) for name, value in limits.items()], empty="")


def _shown(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
