"""What a key grants, to whom and until when."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from serving.core.keys import Key, Scope, digest_of, read_scopes

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = Key(id="1", name="ann", digest="d", scopes=frozenset({Scope.INFER}), created_at=NOW, created_by="bob")


@pytest.mark.parametrize(
    ("held", "granted"),
    [
        ({Scope.INFER}, {Scope.OPEN, Scope.INFER}),
        ({Scope.READ}, {Scope.OPEN, Scope.READ}),
        ({Scope.INFER, Scope.READ}, {Scope.OPEN, Scope.INFER, Scope.READ}),
        ({Scope.ADMIN}, set(Scope)),
    ],
)
def test_key_grants_its_scopes_and_an_admin_all(held: set[Scope], granted: set[Scope]) -> None:
    """A key that may infer may not read, and the other way round."""
    key = replace(KEY, scopes=frozenset(held))
    assert {scope for scope in Scope if key.grants(scope)} == granted


@pytest.mark.parametrize(
    ("models", "model", "is_for"),
    [
        ((), "digits", True),
        (("digits",), "digits", True),
        (("dig*", "a"), "digits", True),
        (("a",), "b", False),
    ],
)
def test_key_is_for_models_when_named(models: tuple[str, ...], model: str, is_for: bool) -> None:
    """Names and globs; none is all."""
    assert replace(KEY, models=models).is_for(model) is is_for


@pytest.mark.parametrize(("seconds", "is_expired"), [(-1, False), (0, True), (1, True)])
def test_key_expires_when_its_moment_has_come(seconds: int, is_expired: bool) -> None:
    """The very moment counts as expired; without one it never does."""
    assert replace(KEY, expires_at=NOW).is_expired(NOW + timedelta(seconds=seconds)) is is_expired
    assert not KEY.is_expired(NOW + timedelta(days=9999))


def test_digest_is_sha256_of_the_secret() -> None:
    """Known value, and any text a header can carry has one."""
    assert digest_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_of("kl\udc80") != digest_of("kl")


def test_read_scopes_names_the_choices_when_one_is_strange() -> None:
    """And one is needed."""
    assert read_scopes(["read", "infer"]) == {Scope.READ, Scope.INFER}
    with pytest.raises(ValueError, match="'root' is no scope; choose of infer, read, admin"):
        read_scopes(["root"])
    with pytest.raises(ValueError, match="'open' is no scope"):
        read_scopes(["open"])
    with pytest.raises(ValueError, match="a key needs a scope"):
        read_scopes([])
