"""The webhook by which MLflow tells serving that an alias moved. Called by `up` on every start.

Found again by its URL, so starting twice leaves one; the secret is sent each time, as MLflow never
shows the one it has. A webhook only saves waiting: without it serving polls.
"""

from typing import Any

import httpx

from flows.settings import FlowSettings, is_loopback, url_host
from serving.store.registry import connect

_PATH = "/api/v2/webhooks/mlflow"
_API = "/api/2.0/mlflow/webhooks"
_EVENTS = [
    {"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"},
    {"entity": "MODEL_VERSION_ALIAS", "action": "DELETED"},
]


def register_webhook(settings: FlowSettings) -> str:
    """Have MLflow announce alias changes; why it will not, or nothing."""
    target = settings.serving_url + _PATH
    if is_loopback(url_host(target)) and not is_loopback(url_host(settings.mlflow_url)):
        return f"from {settings.mlflow_url} this machine's own {settings.serving_url} cannot be reached"
    try:
        with connect(settings) as client:
            return _test(client, _put(client, target, settings.webhook_secret_file.read_text().strip()))
    except httpx.HTTPStatusError as error:
        return f"it answered {error.response.status_code}: {_message(error.response)}"
    except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
        return str(error) or type(error).__name__


def _put(client: httpx.Client, target: str, secret: str) -> str:
    """Create the webhook or bring it up to date; its id."""
    wanted = {"name": "signalbox", "url": target, "secret": secret, "status": "ACTIVE", "events": _EVENTS}
    known = _find(client, target)
    if known is None:
        created = _checked(client.post(_API, json=wanted))
        return str(created["webhook"]["webhook_id"])
    _checked(client.patch(f"{_API}/{known}", json=wanted))
    return known


def _find(client: httpx.Client, target: str) -> str | None:
    params: dict[str, str | int] = {"max_results": 100}
    while True:
        page = _checked(client.get(_API, params=params))
        for webhook in page.get("webhooks", []):
            if webhook["url"] == target:
                return str(webhook["webhook_id"])
        if not page.get("next_page_token"):
            return None
        params["page_token"] = page["next_page_token"]


def _test(client: httpx.Client, webhook_id: str) -> str:
    """Have MLflow deliver a test event, which wakes serving and changes nothing."""
    try:
        result = _checked(client.post(f"{_API}/{webhook_id}/test", json={"event": _EVENTS[0]}))["result"]
    except httpx.TimeoutException:
        # It tries a receiver it cannot reach several times before it says so.
        return "its test delivery did not arrive"
    if result.get("success"):
        return ""
    status = result.get("response_status")
    return f"its test delivery was answered {status}" if status else "its test delivery did not arrive"


def _checked(response: httpx.Response) -> dict[str, Any]:
    response.raise_for_status()
    body = response.json()
    return body if isinstance(body, dict) else {}


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase
