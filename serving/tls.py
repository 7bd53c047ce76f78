"""The certificate a server proves itself with, checked before it listens."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from serving.core.errors import SignalboxError


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the certificate chain, the server's own first, and its private key without a password."""

    certificate: Path
    key: Path

    def check(self) -> None:
        """Raises `SignalboxError` for files that are missing, unreadable or do not belong together."""
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                self.certificate, self.key, password=_no_password
            )
        except (OSError, ssl.SSLError, ValueError) as error:
            raise SignalboxError(
                f"TLS cannot use {self.certificate} with the key {self.key}: {error}; give "
                "SIGNALBOX_TLS_CERTIFICATE and SIGNALBOX_TLS_KEY as PEM files that belong together"
            ) from None


def _no_password() -> str:
    """Asked for an encrypted key only; without it OpenSSL would wait at the terminal."""
    raise ValueError("the key has a password; store it without one, readable by its owner only")
