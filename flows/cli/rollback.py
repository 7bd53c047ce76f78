"""`signalbox rollback`: takes a model back to the version it left, and waits until that is done.

An instant or gradual rollback goes to one serving process, which carries it out or has it carried out; an
emergency one is sent to every known replica, as each then acts by itself, whatever else is down.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from flows.cli.client import ServingClient
from flows.cli.console import AsJson, print_json, say, warn
from flows.cli.errors import CommandFailed
from flows.cli.moments import moment_of
from flows.cli.waiting import wait_until
from flows.settings import FlowSettings
from serving.store.rollbacks import Strategy

_FOLLOW_SECONDS = 60.0
# A stage may take as long to be followed, and Prefect its time to begin.
_GRADUAL_SECONDS = 900.0
# Traffic has moved by then; MLflow's alias follows unless MLflow is away, and then later.
_REGISTRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Taken:
    """One replica's rollback at its end. `registry` is `settled` once MLflow's alias agrees."""

    url: str
    rollback_id: str
    from_version: str
    to_version: str
    state: str
    registry: str
    verified: bool | None
    message: str


def rollback(
    model: Annotated[str, typer.Argument(help="The registered model.")],
    strategy: Annotated[Strategy, typer.Option(help="Emergency needs neither MLflow nor the store.")] = (
        Strategy.INSTANT
    ),
    version: Annotated[str | None, typer.Option(help="Go to this version, not the one before.")] = None,
    to: Annotated[
        str | None, typer.Option(help="Go to this restore point, and bring back all of it.")
    ] = None,
    at: Annotated[str | None, typer.Option(help="Go to what answered at this time, or a span ago.")] = None,
    stages: Annotated[str | None, typer.Option(help="Shares that stay, of a gradual one: 75,50,25.")] = None,
    stage_seconds: Annotated[float | None, typer.Option(min=0, help="How long each stage lasts.")] = None,
    allow_signature_change: Annotated[
        bool, typer.Option("--allow-signature-change", help="Also to a version that callers may not fit.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why, for the audit trail.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send a model back to its previous version, or to a version, restore point or time that is named."""
    settings = FlowSettings()
    asked = {
        "version": version,
        "restore_point": to,
        "at": moment_of(at, datetime.now(UTC)).isoformat() if at else None,
        "stages": _shares(stages),
        "stage_seconds": stage_seconds,
        "allow_signature_change": allow_signature_change or None,
        "reason": reason,
    }
    wish: dict[str, Any] = {"model": model, "strategy": strategy.value}
    wish |= {name: value for name, value in asked.items() if value is not None}
    urls = settings.serving_urls if strategy is Strategy.EMERGENCY else [settings.serving_url]
    # All at once: a replica that cannot be reached must not keep the others from going back.
    with ThreadPoolExecutor(max_workers=len(urls)) as pool:
        outcomes = dict(zip(urls, pool.map(lambda url: _try(settings, url, wish), urls), strict=True))
    taken = [outcome for outcome in outcomes.values() if isinstance(outcome, Taken)]
    failed = {url: outcome for url, outcome in outcomes.items() if isinstance(outcome, CommandFailed)}
    if as_json:
        reasons = {url: str(error) for url, error in failed.items()}
        print_json({"model": model, "taken": [asdict(entry) for entry in taken], "failed": reasons})
    else:
        _show(model, taken)
    if failed:
        raise _summary(list(failed.values()))


def _shares(stages: str | None) -> list[int] | None:
    if stages is None:
        return None
    try:
        return [int(part) for part in stages.split(",")]
    except ValueError:
        raise CommandFailed(f"'{stages}' are no percents", next_step="write them as 75,50,25") from None


def _try(settings: FlowSettings, url: str, wish: Mapping[str, Any]) -> Taken | CommandFailed:
    try:
        return _roll_back(settings, url, wish)
    except CommandFailed as error:
        return error


def _summary(failed: Sequence[CommandFailed]) -> CommandFailed:
    """One error that names every replica that did not go back."""
    if len(failed) == 1:
        return failed[0]
    problems = "; ".join(error.problem for error in failed)
    return CommandFailed(problems, next_step="these answer as before: see to them, then repeat the command")


def _roll_back(settings: FlowSettings, url: str, wish: Mapping[str, Any]) -> Taken:
    with ServingClient.of(settings, url) as serving:
        accepted = serving.post("/api/v2/rollback", wish)
        patience_seconds = 0.0 if wish["strategy"] == Strategy.EMERGENCY else _REGISTRY_SECONDS
        end_seconds = _GRADUAL_SECONDS if wish["strategy"] == Strategy.GRADUAL else _FOLLOW_SECONDS
        status = _followed(serving, accepted, patience_seconds, end_seconds)
        return Taken(
            url=url,
            rollback_id=str(accepted.get("rollback_id")),
            from_version=str(accepted.get("from")),
            to_version=str(accepted.get("to")),
            state=str(status.get("state")),
            registry=str(status.get("registry", "unknown")),
            verified=status.get("verified"),
            message=str(status.get("message", "")),
        )


def _followed(
    serving: ServingClient, accepted: Mapping[str, Any], registry_seconds: float, end_seconds: float
) -> dict[str, Any]:
    """The rollback's status at its end; raises when that end is not success.

    Waits for MLflow's alias and for proof from every replica too, for as long as `registry_seconds`.
    """
    path = accepted.get("status_url")
    if not path:
        problem = f"{serving.url} took the rollback without saying where its status is"
        raise CommandFailed(problem, next_step="see 'signalbox models'")
    status: dict[str, Any] = {}

    def ended() -> bool:
        status.update(serving.get(str(path)))
        return status.get("success") is not None

    def proven() -> bool:
        return ended() and status.get("registry") != "pending" and status.get("verified") is not False

    wait_until(proven, registry_seconds)
    if not wait_until(ended, end_seconds):
        problem = f"the rollback is still {status.get('state')} after {end_seconds:.0f} s"
        raise CommandFailed(problem, next_step=f"follow it at {serving.url}{path}")
    if not status["success"]:
        problem = f"the rollback failed: {status.get('message') or status.get('state')}"
        raise CommandFailed(problem, next_step="see 'signalbox audit'")
    return status


def _show(model: str, taken: Sequence[Taken]) -> None:
    for entry in taken:
        say(f"{model}: version {entry.from_version} → {entry.to_version} at {entry.url}")
        if entry.message:
            say(entry.message)
        if entry.verified is False:
            warn("not every replica has proved it yet; see its status_url, or 'signalbox models'")
        if entry.registry == "pending":
            warn(f"MLflow's alias still names version {entry.from_version}; serving keeps trying to move it")
