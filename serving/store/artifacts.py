"""The local artifact cache: what was downloaded once is served again without MLflow.

Serving fetches a version here before it loads it. A version's folder appears under its final name
only when every file is complete and hashed; an interrupted download resumes from what lies there.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx

from serving.core.digest import file_sha256
from serving.core.errors import ArtifactRefused, RegistryUnavailable
from serving.store.durable import exclusive, write_atomically
from serving.store.registry import ModelVersion, Registry

_PROXY = "/api/2.0/mlflow-artifacts/artifacts"
_CHUNK_BYTES = 1 << 20
_MANIFEST = "manifest.json"
_MAX_FILES = 10_000
_PARTIAL = ".partial"
_UNSAFE = ("/", "\\", "\0")
_MAX_NAME_BYTES = 200


@dataclass(frozen=True, slots=True)
class CachedArtifact:
    """A complete local copy. `sha256_by_path` is what the download measured, relative to `root`."""

    folder: Path
    source: str
    sha256_by_path: Mapping[str, str]

    @property
    def root(self) -> Path:
        return self.folder / "files"


class ArtifactCache:
    """Downloads through MLflow's artifact proxy into a folder of bounded size."""

    def __init__(self, folder: Path, client: httpx.Client, registry: Registry, limit_bytes: int) -> None:
        self._folder = folder
        self._client = client
        self._registry = registry
        self._limit_bytes = limit_bytes

    def folder_of(self, version: ModelVersion) -> Path:
        """Where this version lies; a namesake from a re-created model lies elsewhere."""
        identity = f"{version.source}\n{version.created_ms}"
        name = f"{version.ref.version}-{sha256(identity.encode()).hexdigest()[:12]}"
        return self._folder / _folder_name(version.ref.model) / name

    def fetch(self, version: ModelVersion) -> CachedArtifact:
        """A verified local copy, downloaded if it is missing or no longer what was downloaded.

        Raises:
            ArtifactRefused: the registry has no such files, or a scheme this server does not read.
            RegistryUnavailable: MLflow failed on the way; what was fetched so far is kept.
        """
        folder = self.folder_of(version)
        with exclusive(_lock_of(folder)):  # an abandoned download may still be under way: it is waited for
            return self.open(folder) or self._fetch(version, folder)

    def _fetch(self, version: ModelVersion, folder: Path) -> CachedArtifact:
        partial = folder.with_name(folder.name + _PARTIAL)
        hashes = self._download(self._proxy_path(version), partial / "files")
        manifest = {"model": version.ref.model, "version": version.ref.version, "source": version.source}
        write_atomically(
            partial / _MANIFEST, json.dumps(manifest | {"sha256_by_path": hashes}, indent=1).encode()
        )
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        return CachedArtifact(folder, version.source, hashes)

    def open(self, folder: Path) -> CachedArtifact | None:
        """The copy in `folder`, or None when it is missing or damaged (then the caller fetches it again)."""
        try:
            manifest = json.loads((folder / _MANIFEST).read_bytes())
            hashes: dict[str, str] = manifest["sha256_by_path"]
            cached = CachedArtifact(folder, str(manifest["source"]), hashes)
            intact = all(file_sha256(cached.root / path) == digest for path, digest in hashes.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        if not intact or not hashes:
            return None
        with suppress(OSError):  # a folder that cannot be written to can still be served from
            os.utime(folder)
        return cached

    def trim(self, keep: frozenset[Path]) -> list[Path]:
        """Remove the least recently opened copies outside `keep` until the cache fits its limit."""
        sizes = {folder: _size_bytes(folder) for folder in self._folder.glob("*/*") if folder.is_dir()}
        total_bytes = sum(sizes.values())
        removed = []
        for folder in sorted(sizes, key=lambda path: path.stat().st_mtime):
            if total_bytes <= self._limit_bytes:
                break
            if folder in keep:
                continue
            with exclusive(_lock_of(folder), wait=False) as is_free:
                if not is_free:
                    continue
                shutil.rmtree(folder, ignore_errors=True)
            total_bytes -= sizes[folder]
            removed.append(folder)
        return removed

    def _proxy_path(self, version: ModelVersion) -> str:
        uri = urlsplit(self._registry.download_uri(version.ref))
        if uri.scheme != "mlflow-artifacts":
            raise ArtifactRefused(
                f"version {version.ref} lies at '{uri.scheme or 'file'}:', which this server does not read",
                next_step="let the MLflow server proxy artifacts (mlflow server --serve-artifacts)",
            )
        return uri.path.strip("/")

    def _download(self, path: str, target: Path) -> dict[str, str]:
        hashes: dict[str, str] = {}
        for relative, size_bytes in self._listing(path):
            local = target / relative
            local.parent.mkdir(parents=True, exist_ok=True)
            self._download_file(f"{path}/{relative}", local, size_bytes)
            hashes[relative] = file_sha256(local)
            if len(hashes) > _MAX_FILES:
                raise ArtifactRefused(
                    f"{path} holds more than {_MAX_FILES} files", next_step="register the model folder alone"
                )
        if not hashes:
            raise ArtifactRefused(
                f"the artifact store has no files at {path}", next_step="register the version again"
            )
        for stale in [file for file in target.rglob("*") if file.is_file()]:
            if stale.relative_to(target).as_posix() not in hashes:
                stale.unlink()
        return hashes

    def _listing(self, path: str, inside: str = "") -> Iterator[tuple[str, int]]:
        """(relative path, size in bytes) of every file below `path`."""
        with _reachable(self._registry.url):
            response = self._client.get(_PROXY, params={"path": f"{path}/{inside}".strip("/")})
            if response.status_code == httpx.codes.NOT_FOUND:
                return
            response.raise_for_status()
            entries = [
                (e["path"], bool(e.get("is_dir")), int(e.get("file_size", 0)))
                for e in response.json().get("files", [])
            ]
        for name, is_folder, size_bytes in entries:
            if name in ("", ".", "..") or any(sign in name for sign in _UNSAFE):
                raise ArtifactRefused(f"unsafe file name {name!r} in {path}", next_step="log the model again")
            relative = f"{inside}/{name}" if inside else name
            if is_folder:
                yield from self._listing(path, relative)
            else:
                yield relative, size_bytes

    def _download_file(self, remote: str, local: Path, size_bytes: int) -> None:
        """Fetch one file, resuming a part that an earlier attempt left behind."""
        part = local.with_name(local.name + ".part")
        if local.exists() and local.stat().st_size == size_bytes:
            return
        have_bytes = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={have_bytes}-"} if 0 < have_bytes < size_bytes else {}
        with (
            _reachable(self._registry.url),
            self._client.stream(
                "GET", f"{_PROXY}/{quote(remote)}", headers=headers, timeout=httpx.Timeout(5.0, read=30.0)
            ) as response,
        ):
            if response.status_code == httpx.codes.NOT_FOUND:
                raise ArtifactRefused(
                    f"the artifact store lost {remote}", next_step="register the version again"
                )
            response.raise_for_status()
            resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
            with part.open("ab" if resumed else "wb") as file:
                for chunk in response.iter_bytes(_CHUNK_BYTES):
                    file.write(chunk)
        if part.stat().st_size != size_bytes:
            got_bytes = part.stat().st_size
            part.unlink()
            raise ArtifactRefused(
                f"{remote} has {got_bytes} bytes, the artifact store promised {size_bytes}",
                next_step="register the version again if this persists",
            )
        part.rename(local)


@contextmanager
def _reachable(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        reason = str(error) or type(error).__name__
        raise RegistryUnavailable(f"MLflow's artifact proxy at {url} failed: {reason}") from error


def _folder_name(model: str) -> str:
    """A registered model's name as one safe path component of bounded length, unique per name."""
    quoted = quote(model, safe="")
    if quoted.startswith("."):
        quoted = "%2E" + quoted[1:]
    if len(quoted) <= _MAX_NAME_BYTES:
        return quoted
    return f"{quoted[:_MAX_NAME_BYTES]}-{sha256(model.encode()).hexdigest()[:12]}"


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name.removesuffix(_PARTIAL) + ".lock")


def _size_bytes(folder: Path) -> int:
    size_bytes = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a download goes on beside this
            size_bytes += file.stat().st_size if file.is_file() else 0
    return size_bytes
