"""Starts runs of the flows through Prefect's plain HTTP API; the work is on record before it is ordered.

So a Prefect that is away loses nothing: the minutely flow takes up what nobody works on.
"""

import asyncio
from collections.abc import Mapping

import httpx

from serving.core.errors import FlowsUnavailable
from serving.store.text import JsonValue

# On SQLite, Prefect answers 503 while others write; nothing was done then, so asking again is safe.
_BUSY_PAUSES_SECONDS = (0.2, 0.5, 1.0)


class Orders:
    """Calls one Prefect API."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def start(self, deployment: str, parameters: Mapping[str, JsonValue]) -> str:
        """The id of a new run of `flow/deployment`. Raises `FlowsUnavailable`."""
        found = await self._ask("GET", f"/deployments/name/{deployment}")
        path = f"/deployments/{found['id']}/create_flow_run"
        run = await self._ask("POST", path, {"parameters": dict(parameters)})
        return str(run["id"])

    async def _ask(
        self, method: str, path: str, body: Mapping[str, JsonValue] | None = None
    ) -> Mapping[str, object]:
        url = str(self._client.base_url).rstrip("/")
        try:
            answer = await self._client.request(method, path, json=body)
            for pause_seconds in _BUSY_PAUSES_SECONDS:
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    break
                await asyncio.sleep(pause_seconds)
                answer = await self._client.request(method, path, json=body)
            answer.raise_for_status()
            told = answer.json()
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            raise FlowsUnavailable(f"Prefect at {url} answered {status} to {path}") from None
        except (httpx.HTTPError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise FlowsUnavailable(f"Prefect at {url} gave no usable answer: {reason}") from None
        if not isinstance(told, dict) or "id" not in told:
            raise FlowsUnavailable(f"what answers at {url} is not Prefect")
        return told
