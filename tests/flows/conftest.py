"""Fixtures for the command line: settings of a temporary home, untouched by the tester's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.settings import FlowSettings

SettingsFactory = Callable[..., FlowSettings]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary SIGNALBOX_HOME; no variable and no `.env` of the tester's reaches the test."""
    monkeypatch.chdir(tmp_path)
    for name in FlowSettings.model_fields:
        monkeypatch.delenv(f"SIGNALBOX_{name.upper()}", raising=False)
    monkeypatch.setenv("SIGNALBOX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def make_settings(home: Path) -> SettingsFactory:
    """Settings of that home, with what a test wants different."""

    def make(**different: Any) -> FlowSettings:
        return FlowSettings(**different)

    return make
