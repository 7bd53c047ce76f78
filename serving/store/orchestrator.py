"""How Prefect's HTTP API is reached: address, credentials and trust, for serving and the commands alike.

Plain HTTP: nobody needs Prefect installed for this.
"""

import ssl
from ipaddress import ip_address
from typing import TypedDict
from urllib.parse import urlsplit

import httpx

from serving.store.settings import StoreSettings

_TIMEOUT_SECONDS = 5.0


class _Options(TypedDict):
    base_url: str
    headers: dict[str, str]
    timeout: float
    verify: ssl.SSLContext | bool
    trust_env: bool


def connect(settings: StoreSettings) -> httpx.Client:
    return httpx.Client(**_options(settings))


def connect_async(settings: StoreSettings) -> httpx.AsyncClient:
    return httpx.AsyncClient(**_options(settings))


def _options(settings: StoreSettings) -> _Options:
    """Paths are relative to the API; a proxy never comes between processes of one machine."""
    bundle = settings.ca_bundle
    return _Options(
        base_url=settings.prefect_api_url,
        headers=settings.prefect_headers,
        timeout=_TIMEOUT_SECONDS,
        verify=ssl.create_default_context(cafile=bundle) if bundle is not None else True,
        trust_env=not _is_loopback(settings.prefect_api_url),
    )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
