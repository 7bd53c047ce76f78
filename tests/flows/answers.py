"""A tiny HTTP server that gives prepared answers, for clients whose server would be costly to start."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.certificates import Certificate


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(slots=True)
class Answers:
    """`answer` maps a request to status and body; every request is kept in `asked`."""

    answer: Callable[[Asked], tuple[int, Any]]
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    port: int = 0


@contextmanager
def answering(
    answer: Callable[[Asked], tuple[int, Any]], certificate: Certificate | None = None
) -> Iterator[Answers]:
    """Serve on a free loopback port until the block ends, over TLS if with a certificate.

    A text body is sent as it is, others as JSON.
    """
    answers = Answers(answer)

    class Respond(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = Asked(self.command, self.path, dict(self.headers), json.loads(raw) if raw else None)
            answers.asked.append(asked)
            status, body = answers.answer(asked)
            sent = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_PUT = do_PATCH = _respond

        def log_message(self, format: str, *args: Any) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Respond)
    server.block_on_close = True
    answers.port = int(server.server_address[1])
    answers.url = f"http://127.0.0.1:{answers.port}"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        answers.url = f"https://127.0.0.1:{answers.port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield answers
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
