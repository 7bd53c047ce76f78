"""Access keys: what one may do, for how long and for which models. Pure; the store keeps only digests.

Read by serving for each request that carries a key, written by `signalbox keys`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import sha256


class Scope(StrEnum):
    """What a call needs, and what a key may do. OPEN calls carry no key, or prove themselves by signature."""

    OPEN = "open"
    INFER = "infer"
    READ = "read"
    ADMIN = "admin"


GRANTABLE = (Scope.INFER, Scope.READ, Scope.ADMIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key without its secret. `digest` is the SHA-256 of the secret in hex.

    `models` are name globs, empty for all models. `requests_per_second` of None is no limit.
    """

    id: str
    name: str
    digest: str
    scopes: frozenset[Scope]
    models: tuple[str, ...] = ()
    requests_per_second: float | None = None
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def grants(self, scope: Scope) -> bool:
        """Whether the key may do what needs `scope`; an admin may do everything."""
        return scope is Scope.OPEN or scope in self.scopes or Scope.ADMIN in self.scopes

    def is_for(self, model: str) -> bool:
        return not self.models or any(fnmatchcase(model, glob) for glob in self.models)

    def is_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and now >= self.expires_at


def digest_of(secret: str) -> str:
    """SHA-256 in hex. A random 256-bit secret needs no slow hash: there is nothing to guess."""
    return sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def read_scopes(names: Sequence[str]) -> frozenset[Scope]:
    """The scopes of these names. Raises `ValueError` naming the ones there are."""
    known = {str(scope): scope for scope in GRANTABLE}
    strange = [name for name in names if name not in known]
    if strange or not names:
        said = f"'{strange[0]}' is no scope" if strange else "a key needs a scope"
        raise ValueError(f"{said}; choose of {', '.join(known)}")
    return frozenset(known[name] for name in names)
