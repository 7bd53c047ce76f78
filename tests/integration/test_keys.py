"""Access keys against a real server: made, used, narrowed, limited and revoked."""

from datetime import UTC, datetime

import httpx
import pytest

from serving.core.keys import Key, Scope, digest_of
from serving.store import keys
from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry
from tests.serving_process import ServingProcess, request_body

pytestmark = pytest.mark.integration


def key(name: str, *scopes: Scope, models: tuple[str, ...] = (), rate: float | None = None) -> Key:
    return Key(
        id=name,
        name=name,
        digest=digest_of(name),
        scopes=frozenset(scopes),
        models=models,
        requests_per_second=rate,
        created_at=datetime.now(UTC),
        created_by="tests",
    )


def status(serving: ServingProcess, secret: str, method: str, path: str) -> httpx.Response:
    headers = {"X-API-Key": secret} if secret else {}
    body = request_body(1.0) if path.endswith("infer") else None
    return httpx.request(method, serving.url + path, headers=headers, json=body, trust_env=False)


def test_keys_open_and_close_doors_when_made_and_revoked(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """A revocation holds within five seconds."""
    model = registry.model("onnx:1", prefix="keys")
    model.point("1")
    serving = start_serving(model.name, require_infer_key=True)
    infer = f"/v2/models/{model.name}/infer"
    with serving.store() as engine:
        for made in (
            key("infers", Scope.INFER),
            key("reads", Scope.READ),
            key("elsewhere", Scope.INFER, models=("other",)),
            key("seldom", Scope.INFER, rate=0.01),
        ):
            keys.create(engine, made)
    serving.wait(lambda: status(serving, "infers", "POST", infer).status_code == 200, "the key is known")
    assert status(serving, "", "POST", infer).status_code == 401
    assert status(serving, "reads", "POST", infer).status_code == 403
    assert status(serving, "reads", "GET", "/api/v2/audit").status_code == 200
    assert status(serving, "infers", "GET", "/api/v2/audit").status_code == 403
    assert status(serving, "elsewhere", "POST", infer).status_code == 403
    assert status(serving, "seldom", "POST", infer).status_code == 200
    limited = status(serving, "seldom", "POST", infer)
    assert (limited.status_code, int(limited.headers["retry-after"]) > 50) == (429, True)
    with serving.store() as engine:
        keys.revoke(engine, "infers", "tests", datetime.now(UTC))
    waited = serving.wait(
        lambda: status(serving, "infers", "POST", infer).status_code == 401, "the revocation holds"
    )
    assert waited < 5
    serving.assert_nothing_lost()
