"""What stands before the application of a worker that may be replaced while its callers stay connected."""

from serving.api.body import Message, Receive
from serving.api.edge import App, Drawn, Send
from serving.api.head import Alike
from serving.api.reply import Reply
from serving.connection import OnTheSpot
from serving.protocol.raw_data import Buffer


class Closing:
    """ASGI application that, once switched on, has every connection closed after its answer.

    An answer on the spot leaves its connection open, so from then on there is none.
    """

    def __init__(self, behind: App) -> None:
        self._behind = behind
        application: object = behind
        self._spot = application if isinstance(application, OnTheSpot) else None
        self.is_on = False

    async def __call__(self, scope: dict[str, object], receive: Receive, send: Send) -> None:
        if not self.is_on:
            await self._behind(scope, receive, send)
            return

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        await self._behind(scope, receive, send_last)

    def at_once(self, scope: dict[str, object], body: Buffer) -> Reply | None:
        return None if self._spot is None or self.is_on else self._spot.at_once(scope, body)

    def recall(self, raw: bytes) -> Alike | None:
        return None if self._spot is None or self.is_on else self._spot.recall(raw)

    def learn(self, raw: bytes, scope: dict[str, object]) -> None:
        if self._spot is not None:
            self._spot.learn(raw, scope)

    def again(self, alike: Alike, body: Buffer, address: str) -> Reply | Drawn | None:
        return None if self._spot is None or self.is_on else self._spot.again(alike, body, address)
