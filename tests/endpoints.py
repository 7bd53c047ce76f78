"""Asks every endpoint of a server's `/openapi.json` for what its description allows, and for what it forbids.

Schemathesis makes the requests; here is what every answer must be: no failure of the server, and every
error `{"error": ...}`. What needs a part that is away may say so with 503.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

_TIMEOUT_SECONDS = 20.0
_SHOWN = 300
# In a path that names a model, one that the server under test serves.
_KNOWN = {"model": "whole", "version": "1"}


def explore(url: str, key: str, *, examples: int, chosen_seed: int) -> dict[str, Counter[int]]:
    """Statuses by operation: of `examples` allowed requests, as many for a known model, as many forbidden."""
    document = requests.get(f"{url}/openapi.json", timeout=_TIMEOUT_SECONDS).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    found: dict[str, Counter[int]] = {}
    with requests.Session() as session:
        session.trust_env = False
        session.headers["X-API-Key"] = key
        for operation in _operations(schema):
            statuses = found.setdefault(operation.label, Counter())
            known = {name: value for name, value in _KNOWN.items() if f"{{{name}}}" in operation.path}
            for asked in (
                operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
                operation.as_strategy(generation_mode=GenerationMode.POSITIVE, path_parameters=known or None),
                operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
            ):
                _ask(operation.label, asked, session, statuses, examples, chosen_seed)
    return found


def _operations(schema: Any) -> Iterator[Any]:
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), f"the description is broken: {result}"
        yield result.ok()


def _ask(
    label: str,
    asked: SearchStrategy[Any],
    session: requests.Session,
    statuses: "Counter[int]",
    examples: int,
    chosen_seed: int,
) -> None:
    @seed(chosen_seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=asked)
    def ask(case: Any) -> None:
        answer = _answer(case, session)
        statuses[answer.status_code] += 1
        problem = _problem(answer)
        assert problem is None, f"{label}: {problem}\n  {case.as_curl_command()}"

    # An operation without any parameter leaves nothing to forbid.
    with suppress(Unsatisfiable):
        ask()
    assert statuses, f"{label} was never asked"


def _answer(case: Any, session: requests.Session) -> requests.Response:
    """The answer; of one that has no end, its beginning."""
    given = case.as_transport_kwargs()
    given.pop("cookies", None)
    answer = session.request(**given, timeout=_TIMEOUT_SECONDS, stream=True, allow_redirects=False)
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        answer.content  # noqa: B018 - reads it
    answer.close()
    return answer


def _problem(answer: requests.Response) -> str | None:
    if answer.status_code >= 500 and answer.status_code != 503:
        return f"answered {answer.status_code}: {answer.text[:_SHOWN]}"
    if answer.status_code < 400:
        return None
    try:
        told = answer.json()
    except ValueError:
        return f"the error {answer.status_code} is not JSON: {answer.text[:_SHOWN]}"
    is_right = isinstance(told, dict) and list(told) == ["error"] and bool(told["error"])
    return None if is_right else f'the error {answer.status_code} is not {{"error": ...}}: {told}'
