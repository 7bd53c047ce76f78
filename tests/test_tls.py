"""Certificate settings: whole, readable and belonging together, or refused with the next step."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from serving.core.errors import SignalboxError
from serving.settings import ServingSettings
from serving.tls import TlsFiles
from tests.certificates import self_signed


@pytest.mark.parametrize("one", ["tls_certificate", "tls_key"])
def test_settings_are_refused_when_only_one_file_is_named(tmp_path: Path, one: str) -> None:
    """A server that was to speak TLS must not speak in the clear for want of a key."""
    with pytest.raises(ValidationError, match="set both or none"):
        ServingSettings(home=tmp_path, **{one: tmp_path / "a.pem"})  # type: ignore[arg-type]


def test_files_are_checked_when_they_belong_together(tmp_path: Path) -> None:
    """And the address says https."""
    made = self_signed(tmp_path)
    settings = ServingSettings(home=tmp_path, port=8443, tls_certificate=made.certificate, tls_key=made.key)
    assert settings.tls == TlsFiles(made.certificate, made.key)
    assert settings.url == "https://127.0.0.1:8443"
    settings.tls.check()


@pytest.mark.parametrize("fault", ["missing", "garbage", "another key"])
def test_files_are_refused_when_they_cannot_be_used(tmp_path: Path, fault: str) -> None:
    """Naming both files and the settings."""
    made, other = self_signed(tmp_path / "one"), self_signed(tmp_path / "other")
    if fault == "missing":
        made.certificate.unlink()
    elif fault == "garbage":
        made.certificate.write_text("no PEM")
    else:
        made.key.write_bytes(other.key.read_bytes())
    with pytest.raises(SignalboxError, match="SIGNALBOX_TLS_CERTIFICATE") as refusal:
        TlsFiles(made.certificate, made.key).check()
    assert str(made.certificate) in str(refusal.value)
