"""MLflow's deliveries: the good one wakes the poll once, everything else is refused."""

import base64
import hashlib
import hmac
from datetime import timedelta
from pathlib import Path

import pytest

from serving.api.webhook import Signature, secret_in
from serving.core.clock import ManualClock
from serving.core.errors import AccessRefused

SECRET = b"s3cr3t"
BODY = b'{"entity": "model_version_alias", "action": "created", "data": {"name": "digits"}}'


def signed(
    clock: ManualClock, *, delivery: str = "d-1", secret: bytes = SECRET, body: bytes = BODY, age: float = 0
) -> dict[str, str]:
    """Headers as MLflow sends them."""
    timestamp = str(int((clock.now() - timedelta(seconds=age)).timestamp()))
    text = f"{delivery}.{timestamp}.".encode() + body
    digest = base64.b64encode(hmac.new(secret, text, hashlib.sha256).digest()).decode()
    return {
        "x-mlflow-delivery-id": delivery,
        "x-mlflow-timestamp": timestamp,
        "x-mlflow-signature": f"v1,{digest}",
    }


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "webhook.secret"
    path.write_bytes(SECRET + b"\n")
    return path


@pytest.fixture
def signature(secret_file: Path, clock: ManualClock) -> Signature:
    return Signature(secret_in(secret_file), clock)


def test_delivery_is_accepted_as_mlflow_signed_it() -> None:
    """A recorded delivery of MLflow 3.17."""
    clock = ManualClock()
    recorded_at = 1795447267
    clock.step_wall(recorded_at - clock.now().timestamp())
    body = (
        b'{"entity": "model_version_alias", "action": "created", "timestamp": "2026-11-23T15:21:07.651422'
        b'+00:00", "data": {"name": "digits", "alias": "champion", "version": "2"}}'
    )
    headers = {
        "x-mlflow-delivery-id": "567bf913-babe-4456-aa37-4f5ff71d4878",
        "x-mlflow-timestamp": str(recorded_at),
        "x-mlflow-signature": "v1,lXcwEyZlIDZnWifLOXQ0/BQ49HEfKf+ty84SnX7PxNQ=",
    }
    signature = Signature(lambda: b"s3cr3t2", clock)
    assert signature.check(headers, body) == "567bf913-babe-4456-aa37-4f5ff71d4878"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"x-mlflow-signature": "v1,bm90IHRoZSByaWdodCBvbmU="}, id="forged"),
        pytest.param({"x-mlflow-signature": ""}, id="empty"),
        pytest.param({"x-mlflow-signature": "v1,ключ"}, id="not-ascii"),
        pytest.param({"x-mlflow-delivery-id": "d-2"}, id="another-delivery"),
    ],
)
def test_delivery_is_refused_when_the_signature_is_not_of_this_message(
    signature: Signature, clock: ManualClock, change: dict[str, str]
) -> None:
    """The delivery's id is part of what is signed."""
    with pytest.raises(AccessRefused, match="signature does not match") as refusal:
        signature.check(signed(clock) | change, BODY)
    assert not refusal.value.identified


def test_delivery_is_refused_when_the_body_was_changed(signature: Signature, clock: ManualClock) -> None:
    """One byte."""
    with pytest.raises(AccessRefused, match="signature does not match"):
        signature.check(signed(clock), BODY.replace(b"digits", b"digitz"))


def test_delivery_is_refused_when_a_prefix_is_missing(signature: Signature, clock: ManualClock) -> None:
    """Another version of the scheme is not this one."""
    headers = signed(clock)
    headers["x-mlflow-signature"] = headers["x-mlflow-signature"].removeprefix("v1,")
    with pytest.raises(AccessRefused):
        signature.check(headers, BODY)


def test_delivery_is_accepted_when_one_of_several_signatures_fits(
    signature: Signature, clock: ManualClock
) -> None:
    """While a secret is being rotated."""
    headers = signed(clock)
    headers["x-mlflow-signature"] = f"v1,AAAA {headers['x-mlflow-signature']}"
    assert signature.check(headers, BODY) == "d-1"


@pytest.mark.parametrize("age", [0, 300, -300])
def test_delivery_is_accepted_within_five_minutes(
    signature: Signature, clock: ManualClock, age: float
) -> None:
    """Clocks differ."""
    assert signature.check(signed(clock, age=age), BODY) == "d-1"


@pytest.mark.parametrize("age", [301, -301, 86400])
def test_delivery_is_refused_when_it_is_stale(signature: Signature, clock: ManualClock, age: float) -> None:
    """Recorded yesterday, sent today."""
    with pytest.raises(AccessRefused, match="too far from this server's clock"):
        signature.check(signed(clock, age=age), BODY)


@pytest.mark.parametrize("timestamp", ["", "noon", "1e9", "nan", "1" * 400, "-1"])
def test_delivery_is_refused_when_the_timestamp_is_no_time(
    signature: Signature, clock: ManualClock, timestamp: str
) -> None:
    """Whatever stands there, it is a refusal and not an error."""
    with pytest.raises(AccessRefused, match="timestamp is missing or too far"):
        signature.check(signed(clock) | {"x-mlflow-timestamp": timestamp}, BODY)


def test_delivery_is_refused_when_no_header_is_there(signature: Signature) -> None:
    """Anybody's POST."""
    with pytest.raises(AccessRefused):
        signature.check({}, BODY)


def test_delivery_is_refused_the_second_time_only_after_it_was_accepted(
    signature: Signature, clock: ManualClock
) -> None:
    """A first try that failed on our side may come again."""
    headers = signed(clock)
    delivery = signature.check(headers, BODY)
    assert signature.check(headers, BODY) == delivery
    signature.remember(delivery)
    with pytest.raises(AccessRefused, match="accepted before"):
        signature.check(headers, BODY)
    assert signature.check(signed(clock, delivery="d-2"), BODY) == "d-2"


@pytest.mark.parametrize("content", [None, b"", b"\n"])
def test_delivery_is_refused_when_no_secret_is_configured(
    secret_file: Path, signature: Signature, clock: ManualClock, content: bytes | None
) -> None:
    """An empty secret would be everybody's."""
    if content is None:
        secret_file.unlink()
    else:
        secret_file.write_bytes(content)
    with pytest.raises(AccessRefused, match="no webhook secret"):
        signature.check(signed(clock, secret=b""), BODY)


def test_rotated_secret_holds_from_the_next_delivery_on(
    secret_file: Path, signature: Signature, clock: ManualClock
) -> None:
    """Without a restart."""
    secret_file.write_bytes(b"new")
    with pytest.raises(AccessRefused):
        signature.check(signed(clock), BODY)
    assert signature.check(signed(clock, secret=b"new"), BODY) == "d-1"


def test_memory_of_deliveries_is_bounded(signature: Signature, clock: ManualClock) -> None:
    """The oldest are forgotten first."""
    for number in range(10_001):
        signature.remember(f"d-{number}")
    assert signature.check(signed(clock, delivery="d-0"), BODY) == "d-0"
    with pytest.raises(AccessRefused):
        signature.check(signed(clock, delivery="d-1"), BODY)
