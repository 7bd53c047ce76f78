"""The flow that delivers the outbox: on demand and on an event; `tend` calls `deliver_notices` itself.

Safe to run at any time and beside itself. A channel that does not work keeps the run Completed: its
notices stay in the outbox, and the message says how many and why.
"""

import logging
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.alerts.delivery import Delivered, deliver
from flows.wiring import Wiring, notifiers, wired
from serving.core.errors import StoreUnavailable
from serving.store.outbox import Severity

_LEVELS = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.CRITICAL: logging.ERROR,
}

Log = logging.Logger | logging.LoggerAdapter[Any]


@flow(name="process-alerts")
def process_alerts() -> State[None]:
    """Deliver the notices that are due; the run's message says what was delivered and what was kept."""
    with wired() as wiring:
        log = get_run_logger()
        try:
            done = deliver_notices(wiring, log)
        except StoreUnavailable as error:
            return Failed(name="Unavailable", message=str(error))
        log.info(done.sentence())
    return Completed(message=done.sentence())


def deliver_notices(wiring: Wiring, log: Log) -> Delivered:
    """One pass; without a channel of their own the notices become lines of `log`."""
    channels = notifiers(wiring.settings, lambda severity, line: log.log(_LEVELS[severity], line))
    done = deliver(wiring.engine, channels, wiring.clock)
    for sentence in done.news:
        log.warning(sentence)
    return done
