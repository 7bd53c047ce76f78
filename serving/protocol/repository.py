"""What a caller may ask of the repository: which version to load or unload, and nothing else.

Source: Triton `extension_model_repository`. Models come from the registry alone, so a load that brings
a configuration or files of its own is refused.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from serving.core.errors import InvalidRequest

_VERSION = re.compile("[1-9][0-9]{0,17}")


def read_load(raw: bytes, version: str | None) -> str | None:
    """The version to load, None for all in question."""
    return wanted_version(_parameters(raw), version, known=())


def read_unload(raw: bytes, version: str | None) -> str | None:
    """The version to unload; nothing here depends on anything, so dependents need no mention."""
    return wanted_version(_parameters(raw), version, known=("unload_dependents",))


def named_version(name: str) -> tuple[str, str | None]:
    """Model and version of a name as `digits/versions/3`, for clients that can name nothing but a model."""
    model, _, version = name.partition("/versions/")
    return model, version or None


def wanted_version(parameters: Mapping[str, Any], version: str | None, known: tuple[str, ...]) -> str | None:
    """The version that path or parameters name. Raises `InvalidRequest` for any other parameter."""
    for name in parameters:
        if name == "config" or name.startswith("file:"):
            raise InvalidRequest(
                f"parameter '{name[:40]}' is refused: models come from the registry only; register a version"
            )
        if name != "version" and name not in known:
            raise InvalidRequest(f"parameter '{name[:40]}' is not known here; known is version")
    wanted = parameters.get("version")
    if wanted is not None and version is not None and str(wanted) != version:
        raise InvalidRequest(f"the path names version {version}, the parameters version {wanted}")
    wanted = version if wanted is None else str(wanted)
    if wanted is not None and not _VERSION.fullmatch(wanted):
        raise InvalidRequest(f"'{wanted[:40]}' is not a version number; aliases are moved in MLflow")
    return wanted


def _parameters(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw) if raw.strip() else {}
        parameters = body.get("parameters", {}) if isinstance(body, dict) else None
        if not isinstance(parameters, dict):
            raise ValueError("not such an object")
    except ValueError as error:
        raise InvalidRequest(f'the body must be empty or {{"parameters": {{...}}}}: {error}') from None
    return parameters
