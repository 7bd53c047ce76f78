"""`signalbox rollback`: takes a model back to the version it left, and waits until that is done.

An instant rollback goes to one serving process, which carries it out; an emergency one is sent to
every known replica, as each then acts by itself, whatever else is down.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from flows.cli.client import ServingClient
from flows.cli.console import AsJson, print_json, say, warn
from flows.cli.errors import CommandFailed
from flows.cli.waiting import wait_until
from flows.settings import FlowSettings

_FOLLOW_SECONDS = 60.0
# Traffic has moved by then; MLflow's alias follows unless MLflow is away, and then later.
_REGISTRY_SECONDS = 10.0


class Strategy(StrEnum):
    INSTANT = "instant"
    EMERGENCY = "emergency"


@dataclass(frozen=True, slots=True)
class Taken:
    """One replica's rollback at its end. `registry` is `settled` once MLflow's alias agrees."""

    url: str
    rollback_id: str
    from_version: str
    to_version: str
    state: str
    registry: str


def rollback(
    model: Annotated[str, typer.Argument(help="The registered model.")],
    strategy: Annotated[Strategy, typer.Option(help="Emergency needs neither MLflow nor the store.")] = (
        Strategy.INSTANT
    ),
    version: Annotated[str | None, typer.Option(help="Go to this version, not the one before.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send a model back to its previous version, or to the one named."""
    settings = FlowSettings()
    wish = {"model": model, "strategy": strategy.value} | ({"version": version} if version else {})
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


def _try(settings: FlowSettings, url: str, wish: Mapping[str, str]) -> Taken | CommandFailed:
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


def _roll_back(settings: FlowSettings, url: str, wish: Mapping[str, str]) -> Taken:
    with ServingClient.of(settings, url) as serving:
        accepted = serving.post("/api/v2/rollback", wish)
        patience_seconds = 0.0 if wish["strategy"] == Strategy.EMERGENCY else _REGISTRY_SECONDS
        status = _followed(serving, accepted, patience_seconds)
        return Taken(
            url=url,
            rollback_id=str(accepted.get("rollback_id")),
            from_version=str(accepted.get("from")),
            to_version=str(accepted.get("to")),
            state=str(status.get("state")),
            registry=str(status.get("registry", "unknown")),
        )


def _followed(serving: ServingClient, accepted: Mapping[str, Any], registry_seconds: float) -> dict[str, Any]:
    """The rollback's status at its end; raises when that end is not success.

    Waits for MLflow's alias too, for as long as `registry_seconds`.
    """
    path = accepted.get("status_url")
    if not path:
        problem = f"{serving.url} took the rollback without saying where its status is"
        raise CommandFailed(problem, next_step="see 'signalbox models'")
    status: dict[str, Any] = {}

    def ended() -> bool:
        status.update(serving.get(str(path)))
        return status.get("success") is not None

    wait_until(lambda: ended() and status.get("registry") != "pending", registry_seconds)
    if not wait_until(ended, _FOLLOW_SECONDS):
        problem = f"the rollback is still {status.get('state')} after {_FOLLOW_SECONDS:.0f} s"
        raise CommandFailed(problem, next_step=f"follow it at {serving.url}{path}")
    if not status["success"]:
        problem = f"the rollback failed: {status.get('message') or status.get('state')}"
        raise CommandFailed(problem, next_step="see 'signalbox audit'")
    return status


def _show(model: str, taken: Sequence[Taken]) -> None:
    for entry in taken:
        say(f"{model}: version {entry.from_version} → {entry.to_version} at {entry.url}")
        if entry.registry == "pending":
            warn(f"MLflow's alias still names version {entry.from_version}; serving keeps trying to move it")
