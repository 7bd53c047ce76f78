"""`POST /api/v2/webhooks/mlflow`: verifies that MLflow sent it, then only wakes the poll.

The content is never believed: what an alias names is read from the registry. Signature: base64 of
HMAC-SHA256 over `{delivery id}.{timestamp}.{raw body}`, as MLflow's webhooks send it.
"""

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from serving.core.clock import Clock
from serving.core.errors import AccessRefused

_TOLERANCE_SECONDS = 300
_REMEMBERED_DELIVERIES = 10_000


class Signature:
    """Tells MLflow's deliveries from forged, stale and repeated ones."""

    def __init__(self, secret: Callable[[], bytes | None], clock: Clock) -> None:
        self._secret = secret
        self._clock = clock
        self._seen: OrderedDict[str, None] = OrderedDict()

    def check(self, headers: Mapping[str, str], body: bytes) -> str:
        """The delivery's id. Raises `AccessRefused`, naming what is wrong."""
        secret = self._secret()
        if secret is None:
            raise _refused("no webhook secret is configured on this server")
        delivery = headers.get("x-mlflow-delivery-id", "")
        timestamp = headers.get("x-mlflow-timestamp", "")
        if not self._is_recent(timestamp):
            raise _refused("the timestamp is missing or too far from this server's clock")
        signed = f"{delivery}.{timestamp}.".encode() + body
        expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        given = headers.get("x-mlflow-signature", "").split(" ")
        if not any(hmac.compare_digest(f"v1,{expected}".encode(), one.encode()) for one in given):
            raise _refused("the signature does not match")
        if delivery in self._seen:
            raise _refused("this delivery was accepted before")
        return delivery

    def remember(self, delivery: str) -> None:
        """Note an accepted delivery, so that a second one is refused."""
        self._seen[delivery] = None
        while len(self._seen) > _REMEMBERED_DELIVERIES:
            self._seen.popitem(last=False)

    def _is_recent(self, timestamp: str) -> bool:
        try:
            return abs(self._clock.now().timestamp() - int(timestamp)) <= _TOLERANCE_SECONDS
        except (ValueError, OverflowError):
            return False


def secret_in(path: Path) -> Callable[[], bytes | None]:
    """Reads the secret anew at each delivery: `up` may write it after this server started."""

    def read() -> bytes | None:
        try:
            return path.read_bytes().strip() or None
        except OSError:
            return None

    return read


def webhook_routes(
    signature: Signature, wake: Callable[[], None], spread: Callable[[str], Awaitable[object]]
) -> APIRouter:
    """`spread` tells the server's other workers of an accepted delivery: they look and remember it too."""
    router = APIRouter(tags=["webhooks"])

    @router.post("/api/v2/webhooks/mlflow", status_code=204)
    async def mlflow(request: Request) -> Response:
        delivery = signature.check(request.headers, await request.body())
        wake()
        signature.remember(delivery)
        await spread(delivery)
        return Response(status_code=204)

    return router


def _refused(problem: str) -> AccessRefused:
    return AccessRefused(f"webhook refused: {problem}", identified=False)
