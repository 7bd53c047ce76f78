"""The soak: mixed traffic with swaps all the time and too little memory, and what came of it (P17).

    python -m benchmarks.soak --minutes 20

Three models in two formats, JSON and binary, one malformed request in a hundred, a swap every five
seconds, evictions forced by a limit on how many versions may be in memory. Each model adds a number
that is its version's, so every answer is checked.
"""

import argparse
import asyncio
import json
import random
import struct
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import httpx
import psutil

from benchmarks.ground import Ground, ground
from benchmarks.row import Row, none_of, show, within
from tests.mlflow_registry import RegisteredModel
from tests.serving_process import ServingProcess

_BAD = (
    b"{",
    b'{"inputs": []}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 9], "data": [1]}]}',
)
_SWAP_SECONDS = 5.0


@dataclass
class Seen:
    """Counts of a soak. `times_ms` by minute."""

    requests: int = 0
    refused: int = 0
    troubles: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    not_refused: int = 0
    times_ms: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    resident_mb: list[float] = field(default_factory=list)
    swaps: int = 0


def soak(place: Ground, *, minutes: float, rate: float) -> list[Row]:
    models = [
        place.registry.model("onnx:1", "onnx:2", prefix="soak"),
        place.registry.model("torch:1", "torch:2", prefix="soak"),
        place.registry.model("onnx:1", "torch:2", prefix="soak"),
    ]
    for model in models:
        model.point("1")
    with place.serving("soak", "soak-*", max_models=4, min_residency_seconds=1.0) as serving:
        seen = asyncio.run(_run(serving, models, minutes * 60, rate))
        serving.assert_nothing_lost()
        evictions = sum(len(serving.audited("evict", model.name)) for model in models)
    return _rows(seen, evictions)


async def _run(serving: ServingProcess, models: list[RegisteredModel], seconds: float, rate: float) -> Seen:
    seen, chance, until = Seen(), random.Random(7), monotonic() + seconds
    limits = httpx.Limits(max_connections=64)
    async with (
        httpx.AsyncClient(base_url=serving.url, trust_env=False, timeout=30, limits=limits) as client,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(_swap(models, until, seen))
        tasks.create_task(_watch(serving.pid, until, seen))
        started = monotonic()
        while monotonic() < until:
            tasks.create_task(_ask(client, chance.choice(models), chance, started, seen))
            seen.requests += 1
            await asyncio.sleep(max(0.0, started + seen.requests / rate - monotonic()))
    return seen


async def _swap(models: list[RegisteredModel], until: float, seen: Seen) -> None:
    while monotonic() < until:
        model = models[seen.swaps % len(models)]
        version = "2" if (seen.swaps // len(models)) % 2 == 0 else "1"
        await asyncio.to_thread(model.point, version)
        seen.swaps += 1
        await asyncio.sleep(_SWAP_SECONDS)


async def _watch(pid: int, until: float, seen: Seen) -> None:
    process = psutil.Process(pid)
    while monotonic() < until:
        seen.resident_mb.append(process.memory_info().rss / (1 << 20))
        await asyncio.sleep(5.0)


async def _ask(
    client: httpx.AsyncClient, model: RegisteredModel, chance: random.Random, started: float, seen: Seen
) -> None:
    url, x = f"/v2/models/{model.name}/infer", round(chance.random(), 3)
    begun = monotonic()
    try:
        if chance.random() < 0.01:
            answer = await client.post(url, content=chance.choice(_BAD))
            seen.refused += 1
            seen.not_refused += not 400 <= answer.status_code < 500
            return
        body, headers = _binary(x) if chance.random() < 0.5 else _json(x)
        answer = await client.post(url, content=body, headers=headers)
    except httpx.HTTPError as error:
        seen.troubles[type(error).__name__] += 1
        return
    seen.times_ms[int((begun - started) // 60)].append((monotonic() - begun) * 1000)
    if answer.status_code != httpx.codes.OK:
        seen.troubles[f"{answer.status_code} {answer.text[:80]}"] += 1
        return
    told = answer.json()
    added = model.constants[told["model_version"]]
    seen.wrong += any(abs(value - (x + added)) > 1e-3 for value in told["outputs"][0]["data"])


def _json(x: float) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [x, x, x]}
    return json.dumps({"inputs": [tensor]}).encode(), {"content-type": "application/json"}


def _binary(x: float) -> tuple[bytes, dict[str, str]]:
    raw = struct.pack("<3f", x, x, x)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + raw, {"inference-header-content-length": str(len(head))}


def _rows(seen: Seen, evictions: int) -> list[Row]:
    p99 = {minute: sorted(times)[round(0.99 * (len(times) - 1))] for minute, times in seen.times_ms.items()}
    told = ", ".join(f"{p99[minute]:.1f}" for minute in sorted(p99))
    settled = seen.resident_mb[len(seen.resident_mb) // 4 :] or [0.0]
    growth = 100 * (settled[-1] / settled[0] - 1) if settled[0] else 0.0
    valid = seen.requests - seen.refused
    what = f"{seen.swaps} swaps, {evictions} evictions, {seen.refused} malformed"
    return [
        none_of("P17", f"valid requests failed; {what}", sum(seen.troubles.values()), valid),
        none_of("P17", "answers of a wrong value", seen.wrong, valid),
        none_of("P17", "malformed requests not refused with 4xx", seen.not_refused, max(1, seen.refused)),
        within("P17", "growth of resident memory, last three quarters", growth, 10.0, "%"),
        Row("P17", "p99 by minute, ms", told, "", "", "", None, str(dict(seen.troubles.most_common(3)))),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Soak a server with everything at once.")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="signalbox-soak-") as folder, ground(Path(folder)) as place:
        rows = soak(place, minutes=arguments.minutes, rate=arguments.rate)
    show(rows)
    return 0 if all(row.is_met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
