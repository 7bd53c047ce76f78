"""`signalbox traffic`: how a model's requests are split between champion and challenger, and changing it."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from flows.cli.client import ServingClient
from flows.cli.console import AsJson, print_json, say, warn
from flows.settings import FlowSettings


def traffic(
    model: Annotated[str, typer.Argument(help="The registered model.")],
    percent: Annotated[
        int | None, typer.Option(min=0, max=100, help="Send this percent of requests to the challenger.")
    ] = None,
    challenger: Annotated[
        str | None, typer.Option(help="Only if this is the version that alias challenger names.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how requests are split between champion and challenger, or change it."""
    if challenger is not None and percent is None:
        raise typer.BadParameter("--challenger needs --percent")
    path = f"/api/v2/traffic/{quote(model, safe='')}"
    is_met = True
    with ServingClient.of(FlowSettings()) as serving:
        if percent is None:
            state = serving.get(path)
        else:
            wish: dict[str, Any] = {"percent": percent} | ({"challenger": challenger} if challenger else {})
            state, is_met = serving.put(path, wish)
    if as_json:
        print_json(state)
        return
    say(_sentence(state))
    if not is_met:
        warn("not every server follows this yet; see 'signalbox traffic' and 'signalbox models' again")


def _sentence(state: dict[str, Any]) -> str:
    if state["champion"] is None:
        return f"{state['model']}: no champion answers"
    if state["challenger"] is None:
        return f"{state['model']}: version {state['champion']} answers all requests; there is no challenger"
    rest = 100 - state["percent"]
    owner = f", for rollout {state['rollout']}" if state["rollout"] else ""
    return (
        f"{state['model']}: {rest} % to champion {state['champion']}, "
        f"{state['percent']} % to challenger {state['challenger']}{owner}"
    )
