"""Builds the adapters of the flows from their settings; the only place that opens clients and stores."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
from sqlalchemy import Engine

from flows.alerts.console import Console
from flows.alerts.notify import Notifier
from flows.settings import FlowSettings
from serving.core.clock import Clock, SystemClock
from serving.store.database import open_engine
from serving.store.guard import Guard
from serving.store.leases import Leases
from serving.store.outbox import Severity
from serving.store.registry import Registry, connect


@dataclass(frozen=True, slots=True)
class Wiring:
    """What flows work with."""

    settings: FlowSettings
    clock: Clock
    engine: Engine
    client: httpx.Client
    registry: Registry
    leases: Leases
    guard: Guard


@contextmanager
def wired(settings: FlowSettings | None = None) -> Iterator[Wiring]:
    """Open everything; close it in reverse."""
    settings = settings or FlowSettings()
    clock = SystemClock()
    with ExitStack() as stack:
        engine = open_engine(settings.database_url)
        stack.callback(engine.dispose)
        client = connect(settings)
        stack.callback(client.close)
        registry = Registry(client, settings.serves, settings.env)
        leases = Leases(engine, clock)
        yield Wiring(
            settings=settings,
            clock=clock,
            engine=engine,
            client=client,
            registry=registry,
            leases=leases,
            guard=Guard(registry, engine, leases),
        )


def notifiers(settings: FlowSettings, write: Callable[[Severity, str], None]) -> list[Notifier]:
    """The channels that notices go to: Slack if it is set up, else lines handed to `write`."""
    slack = slack_channel(settings)
    return [Console(write)] if slack is None else [slack]


def slack_channel(settings: FlowSettings) -> Notifier | None:
    """None where no setting names Slack; a channel that explains itself where one is missing."""
    token, webhook_url = settings.slack_bot_token, settings.slack_webhook_url
    if not (token or webhook_url or settings.slack_channel):
        return None
    # Imported here: most flows have nothing to say to Slack.
    from flows.alerts.slack import SlackAccess, slack_notifier

    return slack_notifier(
        SlackAccess(
            bot_token=token.get_secret_value().strip() if token else "",
            channel=settings.slack_channel.strip(),
            webhook_url=webhook_url.get_secret_value().strip() if webhook_url else "",
            api_url=settings.slack_api_url,
        )
    )
