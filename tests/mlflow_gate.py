"""A gate between serving and a real MLflow server: open, or failing in one of the ways servers fail.

For faults that a test needs at a given moment and that MLflow cannot be asked to show.
"""

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import httpx

SLOW_SECONDS = 30.0
_PASSED_ON = ("content-type", "authorization", "range")


class Way(StrEnum):
    """What happens to a request."""

    OPEN = "open"
    READ_ONLY = "writes are answered 500"
    UNAUTHORIZED = "401, as without credentials"
    ERROR = "500"
    HTML = "200 with a web page"
    OTHER_JSON = "200 with JSON of something else"
    SLOW = "an answer after 30 s"


_ANSWERS = {
    Way.UNAUTHORIZED: (401, b'{"error_code": "UNAUTHENTICATED"}'),
    Way.ERROR: (500, b"Internal Server Error"),
    Way.READ_ONLY: (500, b"attempt to write a readonly database"),
    Way.HTML: (200, b"<html><body>Welcome to nginx!</body></html>"),
    Way.OTHER_JSON: (200, b'{"registered_models": [{"title": "not a model"}]}'),
    Way.SLOW: (504, b"upstream timed out"),
}


@dataclass
class MlflowGate:
    """Listens on `url` while its context is open; `way` may be changed at any time."""

    target: str
    way: Way = Way.OPEN
    _closing: threading.Event = field(default_factory=threading.Event, init=False)
    _server: ThreadingHTTPServer | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        assert self._server is not None, "open it first"
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "MlflowGate":
        gate = self

        class Request(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                self._answer(*gate.pass_on(self.command, self.path, self._kept(), self.rfile.read(length)))

            do_POST = do_PATCH = do_DELETE = do_GET

            def _kept(self) -> dict[str, str]:
                return {name: self.headers[name] for name in _PASSED_ON if name in self.headers}

            def _answer(self, status: int, content_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Says nothing: pytest would show it with every failure."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="mlflow-gate", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def pass_on(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        """Status, content type and body of the answer."""
        way = self.way
        if way is Way.SLOW:
            self._closing.wait(SLOW_SECONDS)
        if way is Way.OPEN or (way is Way.READ_ONLY and method == "GET"):
            url = self.target + path
            told = httpx.request(method, url, headers=headers, content=body, trust_env=False, timeout=60.0)
            return told.status_code, told.headers.get("content-type", ""), told.content
        status, text = _ANSWERS[way]
        return status, "application/json", text
