"""A whole server in this process, over a registry double, spoken to through ASGI.

Everything is real but MLflow and the network in front: files, store, model sessions, background loops.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
from sqlalchemy import Engine

from serving.app import Server, running
from serving.core.clock import Clock
from serving.settings import ServingSettings
from serving.store import changes
from serving.store.database import open_engine
from serving.store.outbox import recent
from tests.homes import KEY
from tests.mlflow_double import MlflowDouble
from tests.story import eventually

ADMIN = {"X-API-Key": KEY}


@dataclass
class Station:
    """One running server."""

    home: Path
    http: httpx.AsyncClient
    double: MlflowDouble
    engine: Engine
    server: Server

    async def infer(
        self, *row: float, model: str = "m", address: str | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        place = f"/versions/{address}" if address is not None else ""
        data = list(row) or [1.0, 2.0, 3.0]
        tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": data}
        path = f"/v2/models/{model}{place}/infer"
        return await self.http.post(path, json={"inputs": [tensor]}, headers=headers)

    async def version(self, *row: float, model: str = "m", address: str | None = None) -> str | None:
        """The version that answers, None where nothing does."""
        answer = await self.infer(*row, model=model, address=address)
        return answer.json()["model_version"] if answer.status_code == 200 else None

    async def serves(self, version: str | None, model: str = "m", address: str | None = None) -> None:
        async def met() -> bool:
            return await self.version(model=model, address=address) == version

        await eventually(met, f"{model} is answered by {version}")

    async def serves_at_all(self, model: str) -> None:
        """Wait until the model is ready, whatever it takes."""

        async def met() -> bool:
            return (await self.http.get(f"/v2/models/{model}/ready")).status_code == 200

        await eventually(met, f"{model} is served")

    async def becomes_ready(self) -> None:
        """Wait until the server says that it is; that comes a moment after its models answer."""

        async def met() -> bool:
            return (await self.http.get("/v2/health/ready")).status_code == 200

        await eventually(met, "ready")

    async def roll_back(self, **wish: object) -> httpx.Response:
        return await self.http.post("/api/v2/rollback", json={"model": "m", **wish}, headers=ADMIN)

    async def info(self, model: str = "m") -> dict[str, Any]:
        answer = await self.http.get("/api/v2/model-info", params={"model": model})
        if answer.status_code == 404:
            return {"aliases": {}}
        [entry] = answer.json()["models"]
        return cast(dict[str, Any], entry)

    async def alias(self, alias: str = "champion", model: str = "m") -> dict[str, Any]:
        return cast(dict[str, Any], (await self.info(model))["aliases"].get(alias, {}))

    async def refuses(self, version: str, reason: str, alias: str = "champion") -> None:
        async def met() -> bool:
            state = await self.alias(alias)
            return state.get("wanted") == version and reason in (state["reason"] or "")

        await eventually(met, f"{version} is refused because of {reason!r}")

    async def names(self, version: str | None, alias: str = "champion", model: str = "m") -> None:
        """Wait until the registry names `version`."""
        await eventually(lambda: self.double.named(model, alias) == version, f"{alias} names {version}")

    async def turns(self, count: int = 2) -> None:
        """Let the follower look at the registry that many times more."""
        start = len(self.double.seen)

        def polls() -> int:
            return sum("registered-models/search" in call for call in self.double.seen[start:])

        await eventually(lambda: polls() >= count, f"{count} polls")

    async def audit(self, action: str) -> list[dict[str, Any]]:
        answer = await self.http.get("/api/v2/audit", params={"action": action}, headers=ADMIN)
        return cast(list[dict[str, Any]], answer.json()["rows"])

    def notices(self) -> list[str]:
        return [row.notice.kind for row in recent(self.engine, 100)]

    def changes(self, alias: str = "champion", model: str = "m") -> list[tuple[str | None, str | None, bool]]:
        """Recorded moves of an alias, oldest first: from, to, by hand."""
        rows = changes.recent(self.engine, model, 100)
        return [(r.from_version, r.to_version, r.out_of_band) for r in reversed(rows) if r.alias == alias]


@asynccontextmanager
async def station(
    home: Path, double: MlflowDouble, *, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Station]:
    """A server that polls as fast as a test needs."""
    quick: dict[str, Any] = {
        "poll_seconds": 0.03,
        "threads": 1,
        "mlflow_url": double.url,
        "prefect_api_url": "http://127.0.0.1:9/api",  # nobody listens there
    }
    chosen = ServingSettings(home=home, **(quick | settings))
    engine = open_engine(chosen.database_url)
    try:
        async with running(chosen, clock) as server:
            transport = httpx.ASGITransport(cast(Any, server.application))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                yield Station(home, http, double, engine, server)
    finally:
        engine.dispose()
