"""`signalbox keys` as a user runs it: the secret is shown once, and what it grants is checked first."""

import json
import subprocess
from pathlib import Path

import pytest

from serving.core.keys import Scope, digest_of
from serving.store import keys
from serving.store.database import open_engine
from tests.flows.cli.test_commands import Run, assert_one_sentence, run
from tests.homes import prepare_home

__all__ = ["run"]


@pytest.fixture(autouse=True)
def _store(home: Path, store_template: Path) -> None:
    prepare_home(home, store_template)


def given(run: Run, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("keys", *arguments, SIGNALBOX_HOME=str(home))


def test_create_shows_the_secret_once_and_keeps_its_digest(run: Run, home: Path) -> None:
    """Standard output holds the key and nothing else, so that a script can take it."""
    made = given(run, home, "create", "ann", "-s", "infer", "-s", "read", "-m", "digits", "--rate", "5")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert len(secret) == 43
    assert "the only time" in made.stderr
    engine = open_engine(f"sqlite:///{home / 'signalbox.db'}")
    [key] = keys.active(engine)
    engine.dispose()
    assert (key.digest, key.scopes) == (digest_of(secret), frozenset({Scope.INFER, Scope.READ}))
    assert (key.models, key.requests_per_second, key.expires_at) == (("digits",), 5.0, None)
    assert secret.encode() not in (home / "signalbox.db").read_bytes()


def test_list_shows_keys_in_force_and_all_of_them_when_asked(run: Run, home: Path) -> None:
    """Never a secret, never a digest."""
    assert given(run, home, "create", "ann", "-s", "admin", "--days", "1", "--json").returncode == 0
    assert given(run, home, "create", "bob", "-s", "read").returncode == 0
    revoked = given(run, home, "revoke", "bob")
    assert (revoked.returncode, "'bob' is revoked" in revoked.stdout) == (0, True)
    in_force = json.loads(given(run, home, "list", "--json").stdout)
    assert [(key["name"], key["state"]) for key in in_force] == [("ann", "in force")]
    assert not {"digest", "key"} & in_force[0].keys()
    every = given(run, home, "list", "--all").stdout
    assert "bob" in every
    assert "revoked" in every


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "ann", "-s", "root"), ("'root' is no scope", "infer, read, admin")),
        (("create", "admin", "-s", "read"), ("'admin' is the key in admin.key",)),
        (("create", " ", "-s", "read"), ("printable",)),
        (("revoke", "zoe"), ("there is no key 'zoe'",)),
    ],
)
def test_keys_says_what_is_wrong_when_it_cannot_do_it(
    run: Run, home: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """One sentence."""
    assert_one_sentence(given(run, home, *arguments), *words)
