"""Closed-loop load by `wrk` with one thread, as a peer's own figures are usually made."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True, slots=True)
class Load:
    """What one run saw. Times in milliseconds."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    failed: int


def is_there() -> bool:
    return shutil.which("wrk") is not None


def load(
    url: str,
    body: bytes,
    *,
    connections: int,
    seconds: float,
    headers: Mapping[str, str] | None = None,
) -> Load:
    """POST `body` again and again over `connections` for `seconds`. Raises RuntimeError where wrk fails."""
    given = {"Content-Type": "application/json"} | dict(headers or {})
    with TemporaryDirectory() as folder:
        payload, script = Path(folder) / "body", Path(folder) / "post.lua"
        payload.write_bytes(body)
        lines = ['wrk.method = "POST"', f'wrk.body = io.open("{payload}", "rb"):read("*a")']
        lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in given.items()]
        script.write_text("\n".join(lines))
        threads = ("-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s", "--latency")
        run = subprocess.run(
            ["wrk", *threads, "-s", str(script), url],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            check=False,
        )
    if run.returncode:
        raise RuntimeError(f"wrk: {run.stderr or run.stdout}")
    return read(run.stdout)


def read(said: str) -> Load:
    """wrk's report. Raises RuntimeError where it is none."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None:
        raise RuntimeError(f"wrk said: {said}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    lost = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    failed = int(bad.group(1)) if bad else 0
    failed += sum(map(int, lost.groups())) if lost else 0
    return Load(float(rate.group(1)), _quantile(said, "50"), _quantile(said, "99"), failed)


def _quantile(said: str, percent: str) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)$", said, re.MULTILINE)
    return float(found.group(1)) * _UNITS_MS[found.group(2)] if found else float("nan")
