"""The demonstration's own ports and home, whatever the user has set or started."""

import os
import socket
from pathlib import Path

import pytest

from flows.cli.demo.settings import forget_ambient, settings_for, unused_port
from flows.cli.demo.slack_receiver import TOKEN, SlackReceiver
from flows.cli.errors import CommandFailed
from flows.settings import part_environment


def test_port_is_the_usual_one_when_it_is_free() -> None:
    """Nothing is changed without need."""
    assert unused_port(5000, is_busy=lambda port: False) == 5000


def test_port_is_the_next_free_one_when_the_usual_is_busy() -> None:
    """Upwards from the usual one, so that it is recognised."""
    assert unused_port(5000, is_busy=lambda port: port < 5003) == 5003


def test_port_is_refused_in_a_sentence_when_none_is_free() -> None:
    """A search ends."""
    with pytest.raises(CommandFailed, match="all ports from 5000 to 5099 are busy"):
        unused_port(5000, is_busy=lambda port: True)


def test_port_in_use_is_passed_over_when_somebody_listens() -> None:
    """The real look at the machine's ports."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert unused_port(taken) > taken


def test_parts_know_nothing_of_the_users_settings_when_they_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a store nor a policy of the user's reaches what the demonstration starts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ |= {
        "SIGNALBOX_STORE_URL": "postgresql://somewhere/production",
        "SIGNALBOX_WATCH_SECONDS": "0",
        "SIGNALBOX_HOME": "/elsewhere",
        "MLFLOW_RUN_ID": "1234",
    }
    forget_ambient()
    environment = part_environment(settings_for(tmp_path, SlackReceiver("http://127.0.0.1:9")))
    assert environment["SIGNALBOX_STORE_URL"] == f"sqlite:///{tmp_path}/signalbox.db"
    assert environment["SIGNALBOX_HOME"] == str(tmp_path)
    assert environment["SIGNALBOX_SLACK_API_URL"] == "http://127.0.0.1:9/api/"
    assert environment["SIGNALBOX_SLACK_BOT_TOKEN"] == TOKEN
    assert "SIGNALBOX_WATCH_SECONDS" not in environment
    assert "MLFLOW_RUN_ID" not in environment
