"""Which web pages may call this server: none, unless their origins were named."""

from typing import Any, cast

from starlette.middleware.cors import CORSMiddleware

from serving.api.edge import App, Edge


def crossing(edge: Edge, origins: list[str]) -> App:
    """The edge, opened to the web pages of these origins; to none where none is named."""
    if not origins:
        return edge
    headers = ["content-type", "x-api-key", "authorization", "x-request-id", "x-request-key"]
    told = ["x-model-version", "x-model-variant", "x-request-id", "inference-header-content-length"]
    return CORSMiddleware(
        cast(Any, edge),
        allow_origins=origins,
        allow_methods=["GET", "POST", "PUT"],
        allow_headers=headers,
        expose_headers=told,
    )
