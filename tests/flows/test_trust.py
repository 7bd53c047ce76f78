"""Serving over TLS, as commands and flows reach it: whom they trust and whom they do not."""

from pathlib import Path
from typing import Any

import pytest

from flows.cli.client import ServingClient
from flows.cli.decision import Answer
from flows.cli.errors import Unreachable
from flows.cli.home import prepare
from flows.cli.parts import PARTS
from flows.cli.probe import probe_serving
from flows.health.probe import client
from flows.trust import trust
from serving.core.errors import SignalboxError
from tests.certificates import self_signed
from tests.flows.answers import answering
from tests.flows.conftest import SettingsFactory

SERVING = next(part for part in PARTS if part.name == "serving")


@pytest.mark.parametrize(
    ("host", "address", "setting", "is_trusted"),
    [
        pytest.param("localhost", "localhost", "ca_bundle", True, id="bundle"),
        pytest.param("localhost", "localhost", "tls_certificate", True, id="own"),
        pytest.param("models.example", "127.0.0.1", "tls_certificate", True, id="own-of-another-name"),
        pytest.param("models.example", "localhost", "ca_bundle", False, id="bundle-of-another-name"),
        pytest.param("localhost", "localhost", None, False, id="nothing-set"),
    ],
)
def test_serving_is_reached_over_tls_when_its_certificate_is_trusted(
    make_settings: SettingsFactory,
    tmp_path: Path,
    host: str,
    address: str,
    setting: str | None,
    is_trusted: bool,
) -> None:
    """By the probes of `up`, the commands' client and the flows' one alike."""
    made = self_signed(tmp_path, host)
    with answering(lambda _: (200, {"models": []}), made) as server:
        trusted: dict[str, Any] = {setting: made.certificate} if setting else {}
        settings = make_settings(serving_url=f"https://{address}:{server.port}", **trusted)
        prepare(settings)
        url = settings.serving_url
        assert (probe_serving(settings).answer is Answer.HEALTHY) is is_trusted
        assert SERVING.ready(settings, url) is is_trusted
        with ServingClient.of(settings) as serving:
            if not is_trusted:
                with pytest.raises(Unreachable, match="certificate"):
                    serving.get("/api/v2/model-health")
                return
            assert serving.get("/api/v2/model-health") == {"models": []}
        with client(url, None, trust(settings, url)) as asking:
            assert asking.get("/api/v2/model-health").status_code == 200


def test_serving_with_another_certificate_is_refused_when_this_homes_is_set(
    make_settings: SettingsFactory, tmp_path: Path
) -> None:
    """On loopback the name does not matter, the key does."""
    ours, theirs = self_signed(tmp_path / "ours"), self_signed(tmp_path / "theirs")
    with answering(lambda _: (200, {}), theirs) as server:
        settings = make_settings(serving_url=server.url, tls_certificate=ours.certificate)
        prepare(settings)
        assert probe_serving(settings).answer is Answer.NOTHING


@pytest.mark.parametrize(
    ("different", "variable"),
    [
        ({"tls_certificate": "none.pem"}, "SIGNALBOX_TLS_CERTIFICATE"),
        ({"tls_certificate": "garbage.pem"}, "SIGNALBOX_TLS_CERTIFICATE"),
        ({"ca_bundle": "garbage.pem"}, "SIGNALBOX_CA_BUNDLE"),
    ],
)
def test_file_that_cannot_be_used_is_named_with_its_setting(
    make_settings: SettingsFactory, tmp_path: Path, different: dict[str, str], variable: str
) -> None:
    (tmp_path / "garbage.pem").write_text("no PEM")
    [(setting, name)] = different.items()
    settings = make_settings(serving_url="https://localhost:1", **{setting: tmp_path / name})
    with pytest.raises(SignalboxError, match=variable):
        trust(settings, settings.serving_url)


@pytest.mark.parametrize(
    ("url", "certificate", "obstacle"),
    [
        ("https://127.0.0.1:1", "c.pem", ""),
        ("http://127.0.0.1:1", None, ""),
        ("http://127.0.0.1:1", "c.pem", "https://host:port"),
        ("https://127.0.0.1:1", None, "http://host:port"),
    ],
)
def test_serving_can_be_started_when_url_and_certificate_agree(
    make_settings: SettingsFactory, url: str, certificate: str | None, obstacle: str
) -> None:
    """A server with a certificate speaks TLS alone, one without speaks none."""
    found = SERVING.obstacle(make_settings(serving_url=url, tls_certificate=certificate))
    assert obstacle in found
    assert bool(found) is bool(obstacle)
