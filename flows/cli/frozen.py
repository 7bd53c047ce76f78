"""The freezes that hold, for commands that show something a freeze explains."""

from datetime import UTC, datetime

from sqlalchemy import Engine

from flows.cli.console import say
from flows.settings import FlowSettings
from serving.core.errors import StoreUnavailable
from serving.store import freezes
from serving.store.database import check, open_engine
from serving.store.freezes import Freeze


def in_force(engine: Engine, model: str | None = None) -> list[Freeze]:
    """Those that concern a model, or all."""
    found = freezes.in_force(engine, datetime.now(UTC))
    return [freeze for freeze in found if model is None or freeze.model in (None, model)]


def known(settings: FlowSettings) -> list[Freeze]:
    """As the store has them; none where there is no store yet or it is away."""
    engine = open_engine(settings.database_url)
    try:
        check(engine)
        return in_force(engine)
    except StoreUnavailable:
        return []
    finally:
        engine.dispose()


def say_frozen(found: list[Freeze]) -> None:
    for freeze in found:
        say(f"{freeze}: nothing is promoted")
