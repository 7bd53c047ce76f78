"""Settings of the command line: derived addresses and the environment of started parts."""

from pathlib import Path

import pytest

from flows.settings import is_loopback, part_environment, reachable_host, url_port
from tests.flows.conftest import SettingsFactory


@pytest.mark.parametrize(
    ("given", "url"),
    [
        pytest.param({}, "http://127.0.0.1:8080", id="nothing"),
        pytest.param({"port": 9000}, "http://127.0.0.1:9000", id="port"),
        pytest.param({"host": "0.0.0.0"}, "http://127.0.0.1:8080", id="every address"),
        pytest.param({"host": "::", "port": 9000}, "http://[::1]:9000", id="every address, IPv6"),
        pytest.param({"tls_certificate": "c.pem"}, "https://127.0.0.1:8080", id="certificate"),
        pytest.param({"tls_certificate": "c.pem", "port": 9000}, "https://127.0.0.1:9000", id="both"),
        pytest.param({"serving_url": "http://s:1/", "tls_certificate": "c.pem"}, "http://s:1", id="proxy"),
        pytest.param({"serving_url": "http://s:1/", "port": 9000}, "http://s:1", id="URL outranks port"),
    ],
)
def test_serving_url_follows_address_when_not_given(
    make_settings: SettingsFactory, given: dict[str, object], url: str
) -> None:
    """Where serving is reached is made from what it binds."""
    assert make_settings(**given).serving_url == url


@pytest.mark.parametrize(
    ("given", "host", "port"),
    [
        pytest.param({"serving_url": "http://127.0.0.1:9001"}, "127.0.0.1", 9001, id="from a loopback URL"),
        pytest.param({"serving_url": "https://models.example"}, "127.0.0.1", 8080, id="not from a proxy's"),
        pytest.param({"serving_url": "http://127.0.0.1:9001", "host": "0.0.0.0"}, "0.0.0.0", 9001, id="host"),
    ],
)
def test_bound_address_follows_url_when_on_this_machine(
    make_settings: SettingsFactory, given: dict[str, object], host: str, port: int
) -> None:
    """Serving is told to bind where it will be looked for, unless told otherwise."""
    settings = make_settings(**given)
    assert (settings.bind_host, settings.bind_port) == (host, port)


def test_serving_urls_are_unique_when_replicas_repeat_the_first(make_settings: SettingsFactory) -> None:
    """Each replica is named once, the first one first."""
    settings = make_settings(serving_url="http://a:1", replica_urls=" http://b:1/ ,http://a:1,")
    assert settings.serving_urls == ["http://a:1", "http://b:1"]


def test_part_environment_is_ours_when_ambient_addresses_differ(
    make_settings: SettingsFactory, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ambient MLflow and Prefect addresses are replaced, secrets and loopback exemption handed on."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere:4200/api")
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.setenv("UNRELATED", "kept")
    environment = part_environment(make_settings(mlflow_token="t0ken", mlflow_url="http://127.0.0.1:5001"))
    assert (
        environment["MLFLOW_TRACKING_URI"] == environment["SIGNALBOX_MLFLOW_URL"] == "http://127.0.0.1:5001"
    )
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert environment["SIGNALBOX_HOME"] == str(home)
    assert environment["SIGNALBOX_MLFLOW_TOKEN"] == "t0ken"
    assert environment["NO_PROXY"] == "intranet,localhost,127.0.0.1,::1"
    assert environment["UNRELATED"] == "kept"


def test_part_environment_carries_dotenv_when_only_a_part_knows_the_setting(
    make_settings: SettingsFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of `.env` reaches the part; the real environment outranks the file."""
    (tmp_path / ".env").write_text("signalbox_watch_seconds=7\nSIGNALBOX_CACHE_MB=1\nOTHER=no\n")
    monkeypatch.setenv("SIGNALBOX_CACHE_MB", "2")
    monkeypatch.delenv("SIGNALBOX_WATCH_SECONDS", raising=False)
    environment = part_environment(make_settings())
    assert environment["SIGNALBOX_WATCH_SECONDS"] == "7"
    assert environment["SIGNALBOX_CACHE_MB"] == "2"
    assert "OTHER" not in environment


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.9", True), ("::1", True), ("10.0.0.1", False), ("mlflow.local", False)],
)
def test_loopback_is_recognised_when_named_or_numbered(host: str, loopback: bool) -> None:
    """A name is loopback only if it is localhost."""
    assert is_loopback(host) is loopback


def test_url_parts_are_completed_when_left_out() -> None:
    """A missing port is the scheme's, an IPv6 address gets its brackets."""
    assert (url_port("https://m"), url_port("http://m"), url_port("http://m:1")) == (443, 80, 1)
    assert (reachable_host("::1"), reachable_host("10.0.0.1")) == ("[::1]", "10.0.0.1")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param("", ["{home}/models"], id="nothing set"),
        pytest.param(" , ", ["{home}/models"], id="nothing named"),
        pytest.param("/a,/b", ["/a", "/b"], id="comma"),
        pytest.param("/a:/b", ["/a", "/b"], id="path separator"),
        pytest.param("/a, /a ,", ["/a"], id="twice"),
        pytest.param("here", ["{cwd}/here"], id="relative"),
    ],
)
def test_model_folders_are_absolute_when_named(
    make_settings: SettingsFactory, given: str, expected: list[str]
) -> None:
    """By comma or colon; by default one folder in the home, so that a new user has one at all."""
    settings = make_settings(model_folders=given)
    wanted = [Path(path.format(home=settings.home, cwd=Path.cwd())) for path in expected]
    assert settings.model_folder_paths == wanted
