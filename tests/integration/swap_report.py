"""Measures the swap law at length; run by hand, not by pytest.

    python -m tests.integration.swap_report --seconds 60 --rate 200 --every 3

Prints requests, failures, wrong and old answers, and p50/p95 of alias write to first new answer. Exit
code 0 only if nothing failed and nothing was wrong. It starts its own MLflow and serving in a
temporary folder.
"""

import argparse
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from tests.mlflow_registry import MlflowRegistry, RegisteredModel, log_models
from tests.mlflow_server import MlflowServer
from tests.serving_process import ServingProcess
from tests.traffic import Move, Sample, Traffic, failed, first_answer_seconds, old_after_new, wrong

SECRET = "a secret of both sides"
EVENTS = [{"entity": "MODEL_VERSION_ALIAS", "action": action} for action in ("CREATED", "DELETED")]


@dataclass(frozen=True, slots=True)
class Measured:
    samples: Sequence[Sample]
    moves: Sequence[Move]
    wrong: int

    @property
    def failed(self) -> int:
        return len(failed(self.samples))

    @property
    def old(self) -> int:
        return len(old_after_new(self.samples, self.moves))

    def lines(self) -> list[str]:
        seconds = first_answer_seconds(self.samples, self.moves)
        milliseconds = sorted((s.ended - s.started) * 1000 for s in self.samples if s.is_answered)
        return [
            f"requests              {len(self.samples)}",
            f"failed                {self.failed}",
            f"wrong value           {self.wrong}",
            f"old after new         {self.old}",
            f"moves                 {len(self.moves)}",
            f"write to first answer p50 {_ms(seconds, 50)}, p95 {_ms(seconds, 95)}, max {_ms(seconds, 100)}",
            f"answer time           p50 {_at(milliseconds, 50):.1f} ms, p99 {_at(milliseconds, 99):.1f} ms",
        ]


def _at(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def _ms(seconds: Sequence[float], percent: int) -> str:
    return f"{_at(seconds, percent) * 1000:.0f} ms"


def measure(
    serving: ServingProcess, model: RegisteredModel, *, seconds: float, rate: float, every_seconds: float
) -> Measured:
    """Moves the champion to and fro under load."""
    moves: list[Move] = []
    pace = threading.Event()  # never set: a pause that a deadline ends
    with Traffic(serving.url, model.name, rate_per_second=rate) as traffic:
        started = monotonic()
        while monotonic() - started < seconds:
            pace.wait(every_seconds - (monotonic() - started) % every_seconds)
            version = "2" if len(moves) % 2 == 0 else "1"
            began = monotonic()
            model.point(version)
            moves.append(Move(began, monotonic(), version))
            print(f"\r{monotonic() - started:5.0f} s  champion -> {version}", end="", file=sys.stderr)
        pace.wait(every_seconds)
    print(file=sys.stderr)
    return Measured(traffic.samples, moves, len(wrong(traffic.samples, model.constants)))


def run(home: Path, arguments: argparse.Namespace) -> Measured:
    server = MlflowServer(home / "mlflow-home")
    server.start()
    try:
        registry = MlflowRegistry(server, log_models(server, *arguments.recipes))
        model = registry.model(*arguments.recipes, prefix="swap")
        model.point("1")
        settings = {"poll_seconds": arguments.poll_seconds}
        serving = ServingProcess(home / "serving", server.url, model.name, settings)
        try:
            serving.start_ready()
            if arguments.webhook:
                (serving.home / "webhook.secret").write_text(SECRET)
                url = f"{serving.url}/api/v2/webhooks/mlflow"
                wanted = {"name": "report", "url": url, "secret": SECRET, "events": EVENTS}
                registry.post("webhooks", {**wanted, "status": "ACTIVE"})
            measured = measure(
                serving,
                model,
                seconds=arguments.seconds,
                rate=arguments.rate,
                every_seconds=arguments.every,
            )
            serving.assert_nothing_lost()
            return measured
        finally:
            serving.kill()
    finally:
        server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure champion swaps under load.")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=200, help="requests per second")
    parser.add_argument("--every", type=float, default=3, help="seconds between moves")
    parser.add_argument("--poll-seconds", type=float, default=1)
    parser.add_argument("--no-webhook", dest="webhook", action="store_false", help="rely on the poll alone")
    parser.add_argument("--recipes", nargs=2, default=["onnx:1", "onnx:2"], help="see tests.training")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="swap-report-") as home:
        measured = run(Path(home), arguments)
    print("\n".join(measured.lines()))
    return 0 if measured.failed == measured.wrong == measured.old == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
