"""Builds what registering works with from the flows' wiring; shared by the flow and the command."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.catalog.examination import Allowance, examining
from flows.catalog.outcome import Recorder
from flows.catalog.publish import Publisher
from flows.catalog.register import Means
from flows.catalog.tracking import Tracking
from flows.settings import FlowSettings
from flows.wiring import Wiring
from serving.core.cpus import cpu_count
from serving.formats.limits import FileLimits

_MEGABYTE = 1 << 20


@contextmanager
def means_of(wiring: Wiring, actor: str, *, tells: bool = True) -> Iterator[Means]:
    """`tells`: whether people are told of a refusal who did not ask for the registration."""
    settings = wiring.settings
    settings.home.mkdir(parents=True, exist_ok=True)
    with examining(allowance(settings), examining_log(settings)) as examiner:
        yield Means(
            registry=wiring.registry,
            client=wiring.client,
            publisher=Publisher(Tracking(wiring.client), wiring.registry, wiring.clock, actor),
            examiner=examiner,
            recorder=Recorder(wiring.engine, wiring.clock, actor, tells),
            clock=wiring.clock,
            home=settings.home,
            limits=FileLimits(max_file_bytes=settings.max_model_mb * _MEGABYTE),
            threads=cpu_count(),
        )


def allowance(settings: FlowSettings) -> Allowance:
    return Allowance(settings.register_seconds, settings.register_memory_mb)


def examining_log(settings: FlowSettings) -> Path:
    return settings.home / "logs" / "examiner.log"
