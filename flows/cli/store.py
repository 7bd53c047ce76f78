"""The state store as the commands read it, opened for one command."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from flows.settings import FlowSettings
from serving.store.database import open_engine


@contextmanager
def opened_store() -> Iterator[Engine]:
    """The store that the settings name."""
    engine = open_engine(FlowSettings().database_url)
    try:
        yield engine
    finally:
        engine.dispose()
