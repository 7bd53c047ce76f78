"""The few MLflow calls serving makes, spoken by a real HTTP server on loopback, for tests in a hurry.

Answers as MLflow 3.17 was recorded to: `{}` for nothing, 404 with an error code, Range on files. What
a real server never does on demand (paging by one, garbage, a broken download) is a knob here.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

_API = "/api/2.0/mlflow/"
_PROXY = "/api/2.0/mlflow-artifacts/artifacts"

Query = dict[str, str]


@dataclass(slots=True)
class Fault:
    """An answer given instead of the right one to every path that contains `where`."""

    status: int
    body: bytes = b'{"error_code": "INTERNAL_ERROR"}'
    where: str = ""


@dataclass(slots=True)
class Version:
    source: Path
    tags: dict[str, str] = field(default_factory=dict)
    run_id: str = ""
    logged_as: str = ""


@dataclass(slots=True)
class Model:
    created_ms: int
    versions: dict[str, Version] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Missing(Exception):
    """Becomes MLflow's 404."""


class MlflowDouble:
    """Context manager; state may be changed while it serves. `seen` holds method and path of every call."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.runs: dict[str, Any] = {}
        self.fault: Fault | None = None
        self.page_size = 1000
        self.cut_after_bytes: int | None = None
        self.lie_about_size = 0
        self.scheme = "mlflow-artifacts"
        self.extra_entries: list[dict[str, Any]] = []
        self.before_write: Callable[[], None] | None = None
        self.seen: list[str] = []
        self.ranges: list[str] = []
        self.authorizations: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Calls)
        self._server.double = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, model: str, *folders: Path, **tags: str) -> None:
        """Register folders as the next versions of a model."""
        entry = self.models.setdefault(model, Model(created_ms=1_700_000_000_000 + len(self.models)))
        for folder in folders:
            entry.versions[str(len(entry.versions) + 1)] = Version(folder, dict(tags))

    def point(self, model: str, version: str | None, alias: str = "champion") -> None:
        """Set or delete an alias, as a hand in the UI does."""
        if version is None:
            self.models[model].aliases.pop(alias, None)
        else:
            self.models[model].aliases[alias] = version

    def named(self, model: str, alias: str = "champion") -> str | None:
        return self.models[model].aliases.get(alias)

    # What the calls answer

    def read(self, call: str, query: Query) -> dict[str, Any]:
        if call == "registered-models/search":
            return self._page("registered_models", [self._model(n) for n in sorted(self.models)], query)
        if call == "registered-models/get":
            return {"registered_model": self._model(query["name"])}
        if call == "model-versions/get":
            return {"model_version": self._version(query["name"], query["version"])}
        if call == "model-versions/search":
            name = query["filter"].split("'")[1]
            versions = self.models[name].versions if name in self.models else {}
            return self._page("model_versions", [self._version(name, n) for n in reversed(versions)], query)
        if call == "model-versions/get-download-uri":
            self._version(query["name"], query["version"])
            return {"artifact_uri": f"{self.scheme}:/{query['name']}/{query['version']}"}
        if call == "runs/get":
            return {"run": self._existing(self.runs, query["run_id"], "Run")}
        raise Missing(call)

    def write(self, method: str, call: str, body: Query) -> None:
        if self.before_write is not None:
            self.before_write()
        model: Model = self._existing(self.models, body["name"], "Registered Model")
        if (method, call) == ("POST", "registered-models/alias"):
            self._existing(model.versions, body["version"], "Model Version")
            model.aliases[body["alias"]] = body["version"]
        elif (method, call) == ("DELETE", "registered-models/alias"):
            model.aliases.pop(body["alias"], None)
        elif (method, call) == ("POST", "registered-models/set-tag"):
            model.tags[body["key"]] = body["value"]
        elif (method, call) == ("DELETE", "registered-models/delete-tag"):
            model.tags.pop(body["key"], None)
        elif (method, call) == ("POST", "model-versions/set-tag"):
            model.versions[body["version"]].tags[body["key"]] = body["value"]
        else:
            raise Missing(call)

    def listing(self, path: str) -> dict[str, Any]:
        folder = self.local(path)
        if not folder.is_dir():
            return {}
        entries = [
            {"path": item.name, "is_dir": True}
            if item.is_dir()
            else {
                "path": item.name,
                "is_dir": False,
                "file_size": item.stat().st_size + self.lie_about_size,
            }
            for item in sorted(folder.iterdir())
        ]
        return {"files": [*entries, *self.extra_entries]}

    def local(self, path: str) -> Path:
        name, number, *inside = path.strip("/").split("/")
        return self.models[name].versions[number].source.joinpath(*inside)

    def _page(self, key: str, entries: list[Any], query: Query) -> dict[str, Any]:
        start = int(query.get("page_token", "0"))
        end = start + min(self.page_size, int(query["max_results"]))
        page: dict[str, Any] = {key: entries[start:end]} if entries[start:end] else {}
        return page | ({"next_page_token": str(end)} if end < len(entries) else {})

    def _model(self, name: str) -> dict[str, Any]:
        model: Model = self._existing(self.models, name, "Registered Model")
        times = {"creation_timestamp": model.created_ms, "last_updated_timestamp": model.created_ms}
        answer: dict[str, Any] = {"name": name, **times}
        if model.aliases:
            answer["aliases"] = [{"alias": alias, "version": v} for alias, v in model.aliases.items()]
        return answer | _tags(model.tags)

    def _version(self, name: str, number: str) -> dict[str, Any]:
        model: Model = self._existing(self.models, name, "Registered Model")
        version: Version = self._existing(model.versions, number, "Model Version")
        return {
            "name": name,
            "version": number,
            "creation_timestamp": model.created_ms + int(number),
            "last_updated_timestamp": model.created_ms + int(number),
            "source": version.logged_as or f"models:/m-{name}-{number}",
            "run_id": version.run_id,
            "status": "READY",
            "description": "",
        } | _tags(version.tags)

    @staticmethod
    def _existing(entries: dict[str, Any], key: str, kind: str) -> Any:
        if key not in entries:
            raise Missing(f"{kind} {key} not found")
        return entries[key]


class _Calls(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def _double(self) -> MlflowDouble:
        double: MlflowDouble = self.server.double  # type: ignore[attr-defined]
        return double

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        double, url = self._double, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        double.seen.append(f"{self.command} {unquote(self.path)}")
        double.authorizations.add(self.headers.get("Authorization", ""))
        fault = double.fault
        if fault is not None and fault.where in self.path:
            self._send(fault.status, fault.body)
            return
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        try:
            if url.path.startswith(_PROXY + "/"):
                self._send_file(double.local(unquote(url.path.removeprefix(_PROXY))))
                return
            answer = self._call(url.path, query, body)
        except (Missing, KeyError) as missing:
            code = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": str(missing)}
            self._send(404, json.dumps(code).encode())
            return
        self._send(200, json.dumps(answer).encode())

    def _call(self, path: str, query: Query, body: bytes) -> dict[str, Any]:
        if path == _PROXY:
            return self._double.listing(query["path"])
        if self.command == "GET":
            return self._double.read(path.removeprefix(_API), query)
        self._double.write(self.command, path.removeprefix(_API), json.loads(body))
        return {}

    def _send_file(self, path: Path) -> None:
        if not path.is_file():
            raise Missing(str(path))
        content, start = path.read_bytes(), 0
        asked = self.headers.get("Range")
        if asked is not None:
            self._double.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").partition("-")[0])
        self._send(206 if asked else 200, content[start:], cut=self._double.cut_after_bytes)

    def _send(self, status: int, body: bytes, cut: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None and cut < len(body):
            self.close_connection = True


def _tags(tags: dict[str, str]) -> dict[str, Any]:
    return {"tags": [{"key": key, "value": value} for key, value in tags.items()]} if tags else {}
