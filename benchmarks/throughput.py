"""P1, P2 and P10: one digit per request as JSON, everything switched on, beside floors and peers."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks import wrk
from benchmarks.ground import Ground, digits_body
from benchmarks.peers import MLFLOW, MLSERVER, Peer
from benchmarks.process import running
from benchmarks.row import Row, at_least, at_most, missing
from tests.mlflow_server import free_port

MANY, ONE = 32, 1
_PROMISED = (MLSERVER.name, MLFLOW.name)
_FLOORS = {"floor A": "a", "floor B": "b"}


@contextmanager
def floor(place: Ground, which: str) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    command: list[str | Path] = [sys.executable, "-m", "benchmarks.floors"]
    command += [which, place.model_file, str(port)]
    with running(command, url, place.folder / f"floor-{which}.log"):
        yield url


def scoring_body() -> bytes:
    """The same scan for `/invocations`."""
    tensor = json.loads(digits_body())["inputs"][0]
    pixels = tensor["data"]
    rows = [[[pixels[at : at + 8] for at in range(0, 64, 8)]]]
    return json.dumps({"inputs": rows}).encode()


def throughput(place: Ground, *, seconds: float, repeats: int, peers: tuple[Peer, ...]) -> list[Row]:
    """Every contender is asked in turn, `repeats` times, with many connections and with one."""
    urls: dict[str, tuple[str, bytes]] = {}
    why: dict[str, str] = {}
    with ExitStack() as stack:
        ours = stack.enter_context(place.serving("throughput", place.digits.name))
        bare = stack.enter_context(
            place.serving("bare", place.digits.name, telemetry=False, log_sampling_ratio=0)
        )
        path = f"/v2/models/{place.digits.name}/infer"
        urls["ours"] = (ours.url + path, digits_body())
        urls["ours without telemetry"] = (bare.url + path, digits_body())
        for name, which in _FLOORS.items():
            urls[name] = (stack.enter_context(floor(place, which)), digits_body())
        for peer in peers:
            try:
                body = scoring_body() if peer is MLFLOW else digits_body()
                urls[peer.name] = (stack.enter_context(peer.start(place)), body)
            except Exception as error:  # a peer that cannot be had here is told, and compared with nobody
                why[peer.name] = " ".join(str(error).split())[-200:]
        many = _asked(urls, MANY, seconds, repeats)
        one = _asked(urls, ONE, seconds, repeats)
    others = [missing("", name, reason) for name, reason in why.items() if name not in _PROMISED]
    return [*_rows(many, one, why), *_table(many, one), *others]


def _asked(
    urls: dict[str, tuple[str, bytes]], connections: int, seconds: float, repeats: int
) -> dict[str, list[wrk.Load]]:
    found: dict[str, list[wrk.Load]] = {name: [] for name in urls}
    for turn in range(repeats + 1):
        for name, (url, body) in urls.items():
            load = wrk.load(url, body, connections=connections, seconds=seconds if turn else 1.0)
            if turn:  # the first turn warms up
                found[name].append(load)
    return found


def _rows(many: dict[str, list[wrk.Load]], one: dict[str, list[wrk.Load]], why: dict[str, str]) -> list[Row]:
    rate = {name: [load.requests_per_second for load in loads] for name, loads in many.items()}
    p50 = {name: [load.p50_ms for load in loads] for name, loads in one.items()}
    rows = []
    for name in _PROMISED:
        what = f"JSON, {MANY} connections, against {name}"
        if name in rate:
            rows.append(at_least("P1", what, rate["ours"], rate[name], 5.0, "req/s"))
        else:
            rows.append(missing("P1", what, why.get(name, "not asked for")))
    what = f"JSON, {MANY} connections, against floor A"
    rows.append(at_least("P1", what, rate["ours"], rate["floor A"], 0.8, "req/s"))
    rows.append(at_most("P2", "JSON, 1 connection, p50", p50["ours"], p50["floor A"], 1.3, "ms"))
    bare = rate["ours without telemetry"]
    rows.append(at_least("P10", "with telemetry and inference log", rate["ours"], bare, 0.9, "req/s"))
    return rows


def _table(many: dict[str, list[wrk.Load]], one: dict[str, list[wrk.Load]]) -> list[Row]:
    """Every contender's own figures, for the reader."""
    rows = []
    for name in many:
        rates = [load.requests_per_second for load in many[name]]
        alone = [load.p50_ms for load in one[name]]
        p99 = median(load.p99_ms for load in many[name])
        failed = sum(load.failed for load in (*many[name], *one[name]))
        told = f"{median(rates):.0f} req/s, p99 {p99:.2f} ms; alone p50 {median(alone):.3f} ms"
        rows.append(Row("", name, told, "", "", "", None, f"{failed} failed" if failed else ""))
    return rows
