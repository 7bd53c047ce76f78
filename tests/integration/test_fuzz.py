"""Broken requests by the thousand: no failure of the server, every error in its form, memory bounded.

At length by `python -m tests.fuzz`; what is printed here shows under `pytest -s`.
"""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from tests.endpoints import explore
from tests.fuzz import add_models, in_process, through_http, throw
from tests.mlflow_double import MlflowDouble
from tests.serving_process import ServingProcess

pytestmark = [pytest.mark.integration, pytest.mark.fault("F19")]

MANY = 100_000
OVER_THE_SOCKET = 3000
EXAMPLES = 8
# What caches, arenas of the allocator and the inference log's buffers may take once.
GROWTH_BYTES = 96 << 20


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingProcess]:
    """A server with a model for every kind of tensor."""
    folder = tmp_path_factory.mktemp("fuzz")
    with MlflowDouble() as double:
        add_models(double, folder / "models")
        serving = ServingProcess(folder / "home", double.url, "*")
        serving.start_ready()
        for model in double.models:
            serving.wait(partial(serving.is_ready, model), f"{model} is served")
        try:
            yield serving
        finally:
            serving.kill()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_server_survives_when_bodies_are_broken_in_every_way(tmp_path: Path) -> None:
    """A hundred thousand of them: no 5xx, valid ones in between answered, no growth."""
    found = asyncio.run(in_process(tmp_path, count=MANY, seed=1))
    print(f"\n{found}")
    assert found.count == MANY
    assert found.grown_bytes < GROWTH_BYTES
    assert len(found.kinds) > 15


@pytest.mark.slow
def test_process_survives_when_bodies_are_broken_over_its_socket(serving: ServingProcess) -> None:
    """As above, with the HTTP server in front and the process's own memory."""
    process = psutil.Process(serving.pid)

    async def ask(count: int, seed: int) -> str:
        async with httpx.AsyncClient(base_url=serving.url, trust_env=False, timeout=60.0) as client:
            return str(await throw(through_http(client), count=count, seed=seed))

    asyncio.run(ask(OVER_THE_SOCKET // 3, seed=2))
    before_bytes = process.memory_info().rss
    print(f"\n{asyncio.run(ask(OVER_THE_SOCKET, seed=3))}")
    assert process.memory_info().rss - before_bytes < GROWTH_BYTES
    assert "Traceback" not in serving.log.read_text(), serving.explain()


@pytest.mark.slow
def test_every_endpoint_answers_in_form_when_asked_for_anything(serving: ServingProcess) -> None:
    """What `/openapi.json` allows, and what it forbids."""
    found = explore(serving.url, serving.key, examples=EXAMPLES, chosen_seed=1)
    for label, statuses in found.items():
        print(f"{label}: {dict(sorted(statuses.items()))}")
    assert len(found) >= 30
    assert serving.is_listening()
    assert "Traceback" not in serving.log.read_text(), serving.explain()
    serving.assert_nothing_lost()
