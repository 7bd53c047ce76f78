"""Which certificate of serving the commands and flows trust.

The CA bundle of the settings, else the system's, and always the certificate that this home's own serving is
set up with. On this machine that certificate alone, whatever name it was made for: who answers with it holds
its key.
"""

import ssl
from pathlib import Path
from typing import Literal

from flows.settings import FlowSettings, is_loopback, url_host
from serving.core.errors import SignalboxError

Trust = ssl.SSLContext | Literal[True]

_END = "-----END CERTIFICATE-----"


def trust(settings: FlowSettings, url: str) -> Trust:
    """What `verify` of an HTTP client of `url` has to be. Raises `SignalboxError` naming the setting."""
    if not url.startswith("https:"):
        return True
    own = _first(settings.tls_certificate) if settings.tls_certificate is not None else None
    if own is not None and is_loopback(url_host(url)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
    else:
        context = _of_authorities(settings.ca_bundle)
    if own is not None:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be its own authority
        context.load_verify_locations(cadata=own)
    return context


def _of_authorities(bundle: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise SignalboxError(f"SIGNALBOX_CA_BUNDLE cannot be used: {error}") from error


def _first(file: Path) -> str:
    """The server's own certificate; those after it are of its authorities."""
    try:
        text = file.read_text()
        own = text[: text.index(_END) + len(_END)]
        ssl.create_default_context(cadata=own)
    except (OSError, ValueError) as error:
        raise SignalboxError(f"SIGNALBOX_TLS_CERTIFICATE {file} cannot be used: {error}") from error
    return own
