"""Who may call what: method, path, where the server is bound, and the key, against the outcome."""

import os
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

import pytest

from serving.api.access import ANONYMOUS, Access
from serving.api.keyring import AdminKeyFile, KeyMirror, Keyring
from serving.api.rate import RateLimits
from serving.core.clock import ManualClock
from serving.core.errors import AccessRefused
from serving.core.keys import Key, Scope, digest_of

KEY = "the-admin-key"
GOOD = {"x-api-key": KEY}
BAD = {"x-api-key": "another"}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "admin.key"
    path.write_text(KEY + "\n")
    path.chmod(0o600)
    return path


def access(
    key_file: Path, *, is_loopback: bool = True, require_infer_key: bool = False, hosts: str = ""
) -> Access:
    clock = ManualClock()
    keyring = Keyring(AdminKeyFile(key_file).digest, KeyMirror(key_file.with_name("keys.json")))
    return Access(
        keyring,
        RateLimits(clock),
        clock,
        is_loopback=is_loopback,
        require_infer_key=require_infer_key,
        hosts=hosts,
    )


# method, path, open on loopback, open on loopback when inference needs a key, open elsewhere
CALLS = [
    ("GET", "/v2/health/live", True, True, True),
    ("GET", "/v2/health/ready", True, True, True),
    ("GET", "/v2", True, True, False),
    ("GET", "/v2/models", True, True, False),
    ("GET", "/v2/models/digits", True, True, False),
    ("GET", "/v2/models/digits/versions/2/ready", True, True, False),
    ("POST", "/v2/models/digits/infer", True, False, False),
    ("POST", "/v2/models/digits/versions/2/infer", True, False, False),
    ("GET", "/v2/models/stats", True, True, False),
    ("GET", "/v2/models/digits/config", True, True, False),
    ("POST", "/invocations", True, False, False),
    ("POST", "/models/digits/invocations", True, False, False),
    ("GET", "/ping", True, True, True),
    ("GET", "/health", True, True, True),
    ("GET", "/version", True, True, False),
    ("POST", "/v2/repository/index", True, True, False),
    ("POST", "/v2/repository/mine/index", True, True, False),
    ("POST", "/v2/repository/models/digits/versions/3/load", False, False, False),
    ("POST", "/v2/repository/models/digits/load", False, False, False),
    ("POST", "/v2/repository/models/digits/unload", False, False, False),
    ("POST", "/v2/repository/models/x/index", False, False, False),
    ("GET", "/v2/repository/models/digits/load", False, False, False),
    ("GET", "/api/v2/model-health", True, True, False),
    ("GET", "/api/v2/model-info", True, True, False),
    ("GET", "/metrics", True, True, False),
    ("GET", "/docs", True, True, False),
    ("GET", "/openapi.json", True, True, False),
    ("GET", "/api/v2/audit", False, False, False),
    ("GET", "/api/v2/rollback/1", False, False, False),
    ("GET", "/", False, False, False),
    ("POST", "/api/v2/rollback", False, False, False),
    ("POST", "/api/v2/model-health", False, False, False),
    ("PUT", "/api/v2/traffic/digits", False, False, False),
    ("DELETE", "/v2/models/digits", False, False, False),
    ("DELETE", "/metrics", False, False, False),
    ("POST", "/api/v2/webhooks/mlflow", True, True, True),
    ("POST", "/invocations", True, False, False),
    ("POST", "/models/digits/invocations", True, False, False),
    ("POST", "/api/v2/feedback", False, False, False),
]


@pytest.mark.parametrize(("method", "path", "local", "local_closed", "elsewhere"), CALLS)
def test_call_needs_a_key_where_it_is_not_open(
    key_file: Path, method: str, path: str, local: bool, local_closed: bool, elsewhere: bool
) -> None:
    """No key, a wrong key and the right one, on each kind of server."""
    for is_open, rules in (
        (local, access(key_file)),
        (local_closed, access(key_file, require_infer_key=True)),
        (elsewhere, access(key_file, is_loopback=False)),
    ):
        if is_open:
            assert rules.admit(method, path, {}).name == "anonymous"
            assert rules.admit(method, path, BAD).name == "anonymous"
        else:
            for headers in ({}, BAD):
                with pytest.raises(AccessRefused) as refusal:
                    rules.admit(method, path, headers)
                assert not refusal.value.identified
            assert rules.admit(method, path, GOOD).name == "admin"


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"x-api-key": KEY}, None),
        ({"authorization": f"Bearer {KEY}"}, None),
        ({"authorization": f"bearer  {KEY} "}, None),
        ({"x-api-key": "", "authorization": f"Bearer {KEY}"}, None),
        ({}, "a key is needed"),
        ({"authorization": f"Basic {KEY}"}, "a key is needed"),
        ({"authorization": "Bearer"}, "a key is needed"),
        ({"x-api-key": KEY + "x"}, "not valid"),
        ({"x-api-key": KEY[:-1]}, "not valid"),
        ({"x-api-key": "ключ"}, "not valid"),
    ],
)
def test_key_is_taken_from_either_header(
    key_file: Path, headers: dict[str, str], problem: str | None
) -> None:
    """The sentence tells no key from a wrong one, and nothing else."""
    if problem is None:
        assert access(key_file).admit("POST", "/api/v2/rollback", headers).name == "admin"
    else:
        with pytest.raises(AccessRefused, match=problem):
            access(key_file).admit("POST", "/api/v2/rollback", headers)


@pytest.mark.parametrize("state", ["absent", "empty", "blank", "group-readable", "folder"])
def test_server_has_no_key_when_the_file_is_not_a_private_key(key_file: Path, state: str) -> None:
    """A key that others can read is none."""
    if state == "absent":
        key_file.unlink()
    elif state == "folder":
        key_file.unlink()
        key_file.mkdir(mode=0o700)
    elif state == "group-readable":
        key_file.chmod(0o640)
    else:
        key_file.write_text("" if state == "empty" else " \n")
    with pytest.raises(AccessRefused, match="has no admin key"):
        access(key_file).admit("POST", "/api/v2/rollback", GOOD)


def replace_key(key_file: Path, key: str) -> None:
    fresh = key_file.with_suffix(".new")
    fresh.touch(0o600)
    fresh.write_text(key)
    os.replace(fresh, key_file)


def test_new_key_works_at_once_and_the_old_one_no_longer(key_file: Path) -> None:
    """Without a restart."""
    rules = access(key_file)
    assert rules.admit("GET", "/api/v2/audit", GOOD).name == "admin"
    replace_key(key_file, "new")
    with pytest.raises(AccessRefused):
        rules.admit("GET", "/api/v2/audit", GOOD)
    assert rules.admit("GET", "/api/v2/audit", {"x-api-key": "new"}).name == "admin"
    key_file.unlink()
    with pytest.raises(AccessRefused):
        rules.admit("GET", "/api/v2/audit", {"x-api-key": "new"})


def test_key_counts_as_soon_as_its_file_is_private_and_no_longer_when_it_is_not(key_file: Path) -> None:
    """A changed mode is a changed file."""
    key_file.chmod(0o644)
    rules = access(key_file)
    with pytest.raises(AccessRefused):
        rules.admit("GET", "/api/v2/audit", GOOD)
    key_file.chmod(0o600)
    assert rules.admit("GET", "/api/v2/audit", GOOD).name == "admin"
    key_file.chmod(0o604)
    with pytest.raises(AccessRefused):
        rules.admit("GET", "/api/v2/audit", GOOD)


@pytest.mark.parametrize(
    ("host", "is_served"),
    [
        ("localhost", True),
        ("localhost:8080", True),
        ("LOCALHOST:1", True),
        ("127.0.0.1:8080", True),
        ("[::1]", True),
        ("[::1]:8080", True),
        ("box.lan:8080", True),
        ("Box.LAN", True),
        ("", False),
        ("evil.example", False),
        ("evil.example:8080", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("[::2]:8080", False),
    ],
)
def test_host_is_checked_on_loopback_only(key_file: Path, host: str, is_served: bool) -> None:
    """A web page can point a name of its own at this machine, but cannot name it localhost."""
    rules = access(key_file, hosts=" box.lan ,other")
    if is_served:
        rules.check_host(host)
    else:
        with pytest.raises(AccessRefused, match="SIGNALBOX_ALLOWED_HOSTS") as refusal:
            rules.check_host(host)
        assert refusal.value.identified
    access(key_file, is_loopback=False).check_host(host)


def keyed(key_file: Path, clock: ManualClock, *keys: Key) -> Access:
    """A server that knows these keys, beyond loopback."""
    KeyMirror(key_file.with_name("keys.json")).write(keys)
    keyring = Keyring(AdminKeyFile(key_file).digest, KeyMirror(key_file.with_name("keys.json")))
    limits = RateLimits(clock)
    return Access(keyring, limits, clock, is_loopback=False, require_infer_key=False, hosts="")


def named_key(clock: ManualClock, *scopes: Scope, models: tuple[str, ...] = ()) -> Key:
    return Key(
        id="1",
        name="ann",
        digest=digest_of("ann's"),
        scopes=frozenset(scopes),
        models=models,
        created_at=clock.now(),
        created_by="bob",
        expires_at=clock.now() + timedelta(hours=1),
    )


ANNS = {"x-api-key": "ann's"}
INFER, READ, CHANGE = (
    ("POST", "/v2/models/digits/infer"),
    ("GET", "/api/v2/audit"),
    ("POST", "/api/v2/rollback"),
)


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [(Scope.INFER, {INFER}), (Scope.READ, {READ}), (Scope.ADMIN, {INFER, READ, CHANGE})],
)
def test_key_opens_what_its_scope_names(key_file: Path, scope: Scope, allowed: set[tuple[str, str]]) -> None:
    """And the refusal says which scope is missing."""
    clock = ManualClock()
    rules = keyed(key_file, clock, named_key(clock, scope))
    for method, path in (INFER, READ, CHANGE):
        if (method, path) in allowed:
            assert rules.admit(method, path, ANNS).name == "ann"
        else:
            with pytest.raises(AccessRefused, match=f"key 'ann' has {scope}") as refusal:
                rules.admit(method, path, ANNS)
            assert refusal.value.identified


def test_key_opens_nothing_when_it_has_expired(key_file: Path) -> None:
    """To the second."""
    clock = ManualClock()
    rules = keyed(key_file, clock, named_key(clock, Scope.READ))
    clock.advance(3599)
    assert rules.admit(*READ, ANNS).name == "ann"
    clock.advance(1)
    with pytest.raises(AccessRefused, match="key 'ann' expired at") as refusal:
        rules.admit(*READ, ANNS)
    assert not refusal.value.identified


@pytest.mark.parametrize(
    ("method", "target", "problem"),
    [
        ("POST", "/v2/models/digits/infer", None),
        ("POST", "/v2/models/digits-2/versions/1/infer", None),
        ("GET", "/v2/models/digits", None),
        ("GET", "/v2/models/other%2Fdigits", "not 'other/digits'"),
        ("POST", "/v2/models/fraud/infer", "not 'fraud'"),
        ("POST", "/models/fraud/invocations", "not 'fraud'"),
        ("PUT", "/api/v2/traffic/fraud", "not 'fraud'"),
        ("POST", "/v2/repository/models/fraud/load", "not 'fraud'"),
        ("GET", "/api/v2/audit?model=digits", None),
        ("GET", "/api/v2/audit?model=digits&model=fraud", "not 'fraud'"),
        ("GET", "/api/v2/audit", "this call names none"),
        ("POST", "/v2/repository/index", "this call names none"),
        ("POST", "/api/v2/rollback", None),
    ],
)
def test_key_for_some_models_opens_calls_about_these_alone(
    key_file: Path, method: str, target: str, problem: str | None
) -> None:
    """What names its model in the body is asked about once that is read."""
    clock = ManualClock()
    rules = keyed(key_file, clock, named_key(clock, Scope.ADMIN, models=("digits*",)))
    path = unquote(target.partition("?")[0])
    if problem is None:
        assert rules.admit(method, path, ANNS, target=target).name == "ann"
    else:
        with pytest.raises(AccessRefused, match=problem) as refusal:
            rules.admit(method, path, ANNS, target=target)
        assert refusal.value.identified


def test_caller_may_ask_about_its_own_models_when_the_body_names_one(key_file: Path) -> None:
    """A caller without a key is asked nothing: nothing is open to it that a key would narrow."""
    clock = ManualClock()
    caller = keyed(key_file, clock, named_key(clock, Scope.ADMIN, models=("digits*",))).admit(*CHANGE, ANNS)
    caller.check_model("digits")
    with pytest.raises(AccessRefused):
        caller.check_model("fraud")
    ANONYMOUS.check_model("fraud")
