"""The home folder: what is created, with which rights, and that it is never replaced."""

from pathlib import Path

import pytest

from flows.cli.errors import CommandFailed
from flows.cli.home import Home, prepare
from tests.flows.conftest import SettingsFactory


def test_prepare_creates_private_key_when_home_is_new(make_settings: SettingsFactory) -> None:
    """Folder 0700, key and secret 0600, 256 bits each and nothing else in the file."""
    settings = make_settings()
    prepare(settings)
    assert settings.home.stat().st_mode & 0o777 == 0o700
    for file in (settings.admin_key_file, settings.webhook_secret_file):
        assert file.stat().st_mode & 0o777 == 0o600
        assert len(file.read_text()) == 43
        assert file.read_text() == file.read_text().strip()
    assert settings.admin_key_file.read_text() != settings.webhook_secret_file.read_text()


def test_prepare_keeps_key_when_run_again(make_settings: SettingsFactory) -> None:
    """A key that exists stays."""
    settings = make_settings()
    prepare(settings)
    key = settings.admin_key_file.read_text()
    prepare(settings)
    assert settings.admin_key_file.read_text() == key
    assert not list(settings.home.glob(".admin.key*"))


def test_prepare_refuses_in_a_sentence_when_home_is_a_file(make_settings: SettingsFactory) -> None:
    """A home that cannot be a folder is named, with the setting that moves it."""
    settings = make_settings()
    settings.home.write_text("")
    with pytest.raises(CommandFailed, match="set SIGNALBOX_HOME"):
        prepare(settings)


def test_socket_moves_to_short_folder_when_home_is_deep(
    make_settings: SettingsFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's limit on socket paths does not limit where a home may lie."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    settings = make_settings(home=tmp_path / ("deep" * 30))
    socket = prepare(settings).socket
    assert socket.parent.parent == tmp_path
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert Home(settings.home / "other").socket != socket
    assert Home(Path("/h")).socket == Path("/h/run/supervisord.sock")


def test_prepare_refuses_when_short_folder_is_open_to_others(
    make_settings: SettingsFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else could otherwise answer in the supervisor's place."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    settings = make_settings(home=tmp_path / ("deep" * 30))
    prepare(settings).socket.parent.chmod(0o777)
    with pytest.raises(CommandFailed, match="not private"):
        prepare(settings)
