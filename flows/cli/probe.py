"""What answers at the URL of a part: its own server, a stranger, or nobody.

Called by `up` before it decides and by `status`; every question is a plain GET with a short timeout.
"""

import httpx

from flows.cli.client import read_admin_key
from flows.cli.decision import Answer, Probe
from flows.settings import FlowSettings, is_loopback, url_host
from flows.trust import Trust, trust
from serving.core.errors import SignalboxError
from serving.store import orchestrator
from serving.store.registry import connect

_TIMEOUT_SECONDS = 5.0
_REFUSED = (401, 403)


def probe_mlflow(settings: FlowSettings) -> Probe:
    """Healthy when it says so and lets us read the registry."""
    try:
        with connect(settings) as client:
            health = client.get("/health")
            if health.status_code >= 500:
                return Probe(Answer.UNHEALTHY, f"/health answers {health.status_code}")
            if health.status_code not in (200, *_REFUSED) or health.text.strip() not in ("OK", ""):
                return Probe(Answer.FOREIGN, f"/health answers {health.status_code} {_start(health)}")
            return _registry_answer(
                client.get("/api/2.0/mlflow/registered-models/search", params={"max_results": 1})
            )
    except (httpx.HTTPError, OSError) as error:
        return silence(error)


def probe_prefect(settings: FlowSettings) -> Probe:
    """Healthy when it says so and lets us read its work pools."""
    try:
        with orchestrator.connect(settings) as client:
            health = client.get("/health")
            if health.status_code >= 500:
                return Probe(Answer.UNHEALTHY, f"/health answers {health.status_code}")
            if health.status_code not in (200, *_REFUSED) or health.text.strip() not in ("true", ""):
                return Probe(Answer.FOREIGN, f"/health answers {health.status_code} {_start(health)}")
            pools = client.post("/work_pools/filter", json={"limit": 1})
            if pools.status_code in _REFUSED:
                return Probe(Answer.UNAUTHORISED, f"HTTP {pools.status_code}")
            if pools.status_code >= 500:
                return Probe(Answer.UNHEALTHY, f"it answers {pools.status_code} {_start(pools)}")
            if pools.status_code != 200:
                return Probe(Answer.FOREIGN, f"/work_pools answers {pools.status_code} {_start(pools)}")
            return Probe(Answer.HEALTHY)
    except (httpx.HTTPError, OSError) as error:
        return silence(error)


def probe_serving(settings: FlowSettings) -> Probe:
    """Healthy when it is alive and takes the admin key of this home."""
    try:
        url = settings.serving_url
        with _client(url, trust(settings, url)) as client:
            live = client.get("/v2/health/live")
            if live.status_code >= 500:
                return Probe(Answer.UNHEALTHY, f"/v2/health/live answers {live.status_code}")
            if live.status_code != 200:
                return Probe(Answer.FOREIGN, f"/v2/health/live answers {live.status_code}")
            key = {"X-API-Key": read_admin_key(settings.admin_key_file)}
            return _key_answer(client.get("/api/v2/audit", params={"limit": 1}, headers=key))
    except (httpx.HTTPError, OSError, SignalboxError) as error:
        return silence(error)


def is_ready(url: str, path: str, verify: Trust = True) -> bool:
    """Whether `path` of a started part answers 200."""
    try:
        with _client(url, verify) as client:
            return client.get(path).status_code == 200
    except (httpx.HTTPError, OSError):
        return False


def silence(error: Exception) -> Probe:
    """A connection that cannot be made is silence; one that is made and not used as HTTP is a stranger's."""
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.ReadTimeout):
        return Probe(Answer.UNHEALTHY, f"no answer within {_TIMEOUT_SECONDS:.0f} s")
    if isinstance(error, (httpx.ProtocolError, httpx.ReadError)):
        return Probe(Answer.FOREIGN, f"it does not speak HTTP ({reason})")
    return Probe(Answer.NOTHING, reason)


def _registry_answer(answer: httpx.Response) -> Probe:
    if answer.status_code in _REFUSED:
        return Probe(Answer.UNAUTHORISED, f"HTTP {answer.status_code}")
    if answer.status_code >= 500:
        return Probe(Answer.UNHEALTHY, f"the registry answers {answer.status_code} {_start(answer)}")
    if answer.status_code != 200 or not _is_object(answer):
        return Probe(Answer.FOREIGN, f"the registry's search answers {answer.status_code} {_start(answer)}")
    return Probe(Answer.HEALTHY)


def _key_answer(answer: httpx.Response) -> Probe:
    if answer.status_code in _REFUSED:
        return Probe(Answer.UNAUTHORISED, f"HTTP {answer.status_code}")
    # With its store down a server still serves, and says 503 about its history.
    if answer.status_code in (200, 503):
        return Probe(Answer.HEALTHY)
    return Probe(Answer.FOREIGN, f"/api/v2/audit answers {answer.status_code}")


def _client(url: str, verify: Trust) -> httpx.Client:
    is_near = is_loopback(url_host(url))
    return httpx.Client(base_url=url, timeout=_TIMEOUT_SECONDS, verify=verify, trust_env=not is_near)


def _is_object(answer: httpx.Response) -> bool:
    try:
        return isinstance(answer.json(), dict)
    except ValueError:
        return False


def _start(answer: httpx.Response) -> str:
    """The beginning of a body, enough to recognise a stranger by."""
    return repr(" ".join(answer.text.split())[:60])
