"""Flow `tend`, every minute: reconcile, benchmarks due, check-health, process-alerts, each caught on its own.

One process for all, because a flow run costs seconds of start-up. A step that fails makes the
run fail at its end, after the others had their turn.
"""

from collections.abc import Callable
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.baselines import kept_fresh
from flows.check_health import checked
from flows.process_alerts import deliver_notices
from flows.reconcile import reconciled
from flows.wiring import Wiring, wired


def _delivered(wiring: Wiring) -> list[str]:
    return [deliver_notices(wiring, get_run_logger()).sentence()]


STEPS: tuple[tuple[str, Callable[[Wiring], list[str]]], ...] = (
    ("reconcile", reconciled),
    ("benchmarks", kept_fresh),
    ("check-health", checked),
    ("process-alerts", _delivered),
)


@flow(name="tend")
def tend() -> State[Any]:
    """See to everything that nobody is handling."""
    log = get_run_logger()
    said: list[str] = []
    failed: list[str] = []
    with wired() as wiring:
        for name, step in STEPS:
            try:
                for sentence in step(wiring):
                    log.info("%s: %s", name, sentence)
                    said.append(sentence)
            except Exception as error:  # a task edge: the other steps still have their turn
                log.exception("%s failed", name)
                failed.append(f"{name}: {error}")
    if failed:
        return Failed(message="; ".join(failed))
    return Completed(message="; ".join(said)[:2000] or "nothing to do")
