"""Serving's administration interface as the commands use it: plain HTTP with the home's admin key.

Every failure leaves as one `CommandFailed` whose sentence names the server and the next step.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from flows.cli.errors import CommandFailed, Unreachable
from flows.settings import FlowSettings, is_loopback, url_host
from flows.trust import Trust, trust

_TIMEOUT_SECONDS = 10.0


def read_admin_key(path: Path) -> str:
    """The key in a file, or an empty one, which servers on loopback accept for what is open there."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


class ServingClient:
    """Calls one serving process. A context manager; the connection closes with it."""

    def __init__(self, url: str, key: str, verify: Trust = True) -> None:
        self.url = url
        self._client = httpx.Client(
            base_url=url,
            headers={"X-API-Key": key} if key else {},
            timeout=_TIMEOUT_SECONDS,
            verify=verify,
            trust_env=not is_loopback(url_host(url)),
        )

    @classmethod
    def of(cls, settings: FlowSettings, url: str | None = None) -> Self:
        url = url or settings.serving_url
        return cls(url, read_admin_key(settings.admin_key_file), trust(settings, url))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def get(self, path: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        with self._reached():
            return self._body(self._client.get(path, params=params))

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        with self._reached():
            return self._body(self._client.post(path, json=body))

    def put(self, path: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """The answer, and whether the change is done, not only accepted."""
        with self._reached():
            response = self._client.put(path, json=body)
            return self._body(response), response.status_code != httpx.codes.ACCEPTED

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException:
            reason = f"no answer within {_TIMEOUT_SECONDS:.0f} s"
            raise Unreachable(self.url, reason, next_step="look at 'signalbox status'") from None
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            step = "start it with 'signalbox up', or correct SIGNALBOX_SERVING_URL"
            raise Unreachable(self.url, reason, next_step=step) from None

    def _body(self, response: httpx.Response) -> dict[str, Any]:
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.is_success and isinstance(body, dict):
            return body
        if response.is_success or not isinstance(body, dict) or "error" not in body:
            problem = f"{self.url} answered {response.status_code} to {response.request.url.path}"
            step = "check that SIGNALBOX_SERVING_URL names a Signalbox server of this release"
            raise CommandFailed(f"{problem}, which is not an answer of ours", next_step=step)
        raise CommandFailed(f"{self.url}: {body['error']}", next_step=_next_step(response.status_code))


def _next_step(status: int) -> str:
    if status in (401, 403):
        return "the key in admin.key of this home is not that server's; set SIGNALBOX_HOME to its home"
    if status == 503:
        return "try again, and look at 'signalbox status'"
    return ""
