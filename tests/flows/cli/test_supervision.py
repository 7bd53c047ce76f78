"""The supervisor's configuration, as its own parser reads it."""

import configparser
import shlex
import sys
from pathlib import Path

import pytest

from flows.cli.errors import CommandFailed
from flows.cli.home import Home
from flows.cli.parts import PARTS
from flows.cli.supervision import configuration, part_states, supervisor_process
from tests.flows.conftest import SettingsFactory


def parsed(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read_string(text)
    return parser


def test_configuration_runs_parts_by_launcher_when_written(
    make_settings: SettingsFactory, home: Path
) -> None:
    """Each part starts through the launcher, restarts without end, and is stopped as a group."""
    found = parsed(configuration(Home(home), PARTS, make_settings()))
    for part in PARTS:
        section = found[f"program:{part.name}"]
        command = shlex.split(section["command"])
        assert command[:4] == [sys.executable, "-P", "-m", "flows.cli.part"]
        assert command[command.index("--pid-file") + 1] == str(home / "run" / f"{part.name}.pid")
        assert section["autorestart"] == section["stopasgroup"] == section["killasgroup"] == "true"
        assert section["stdout_logfile"] == str(home / "logs" / f"{part.name}.log")
    assert 'MALLOC_TRIM_THRESHOLD_="65536"' in found["program:serving"]["environment"]


def test_configuration_listens_on_no_port_when_written(make_settings: SettingsFactory) -> None:
    """Commands reach the supervisor over a Unix socket only."""
    found = parsed(configuration(Home(Path("/srv/signalbox")), PARTS, make_settings()))
    assert found["unix_http_server"]["file"] == "/srv/signalbox/run/supervisord.sock"
    assert not found.has_section("inet_http_server")


def test_configuration_holds_no_secret_when_settings_do(make_settings: SettingsFactory, home: Path) -> None:
    """Secrets travel in the environment, not in a file."""
    assert "hunter2" not in configuration(Home(home), PARTS, make_settings(mlflow_password="hunter2"))


def test_configuration_keeps_spaces_and_quotes_when_home_has_them(make_settings: SettingsFactory) -> None:
    """An unusual folder name reaches the part unchanged."""
    strange = Path('/tmp/a b\'s "home"')
    found = parsed(configuration(Home(strange), PARTS, make_settings(home=strange)))
    assert str(strange / "run" / "mlflow.pid") in shlex.split(found["program:mlflow"]["command"])


@pytest.mark.parametrize("name", ["100%", "a ;b", "a #b", "a\nb"])
def test_configuration_refuses_when_home_cannot_be_written_down(
    make_settings: SettingsFactory, name: str
) -> None:
    """What the file format would misread is refused by name."""
    with pytest.raises(CommandFailed, match="choose a SIGNALBOX_HOME"):
        configuration(Home(Path("/tmp") / name), PARTS, make_settings(home=Path("/tmp") / name))


def test_nothing_is_supervised_when_home_is_missing(home: Path) -> None:
    """Asking about a home that was never used is no error; neither is a stale pid file."""
    assert part_states(Home(home)) is None
    assert supervisor_process(Home(home)) is None
    Home(home).run.mkdir(parents=True)
    Home(home).supervisor_pid_file.write_text("1\n")
    assert supervisor_process(Home(home)) is None
