"""The artifact cache: complete and verified or not there at all, whatever happens to the download."""

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from serving.core.digest import file_sha256
from serving.core.errors import ArtifactRefused, NotServed, RegistryUnavailable
from serving.core.model import VersionRef
from serving.store.artifacts import ArtifactCache
from serving.store.durable import exclusive
from serving.store.registry import ModelVersion, Registry, connect
from serving.store.settings import StoreSettings
from tests.mlflow_double import Fault, MlflowDouble

WEIGHTS = bytes(range(256)) * 400
REF = VersionRef("digits", "1")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A version's files as the artifact store has them."""
    source = tmp_path / "source"
    (source / "data" / "deep").mkdir(parents=True)
    (source / "MLmodel").write_text("flavors: {}")
    (source / "model.onnx").write_bytes(WEIGHTS)
    (source / "data" / "deep" / "with space.bin").write_bytes(b"x")
    (source / "empty").touch()
    return source


@pytest.fixture
def double(source: Path) -> Iterator[MlflowDouble]:
    with MlflowDouble() as double:
        double.add("digits", source)
        yield double


@pytest.fixture
def client(double: MlflowDouble, tmp_path: Path) -> Iterator[httpx.Client]:
    with connect(StoreSettings(home=tmp_path, mlflow_url=double.url)) as client:
        yield client


@pytest.fixture
def registry(client: httpx.Client) -> Registry:
    return Registry(client, serves=lambda name: True)


@pytest.fixture
def cache(tmp_path: Path, client: httpx.Client, registry: Registry) -> ArtifactCache:
    return ArtifactCache(tmp_path / "cache", client, registry, limit_bytes=1 << 30)


@pytest.fixture
def version(registry: Registry) -> ModelVersion:
    return registry.version(REF)


def downloads(double: MlflowDouble) -> list[str]:
    return [call for call in double.seen if "/artifacts/" in call]


def test_fetch_copies_every_file_and_its_hash(
    cache: ArtifactCache, version: ModelVersion, source: Path
) -> None:
    """Folders, names with spaces and empty files included."""
    cached = cache.fetch(version)
    paths = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert dict(cached.sha256_by_path) == {path: file_sha256(source / path) for path in paths}
    assert all((cached.root / path).read_bytes() == (source / path).read_bytes() for path in paths)
    assert cached.source == version.source


def test_fetch_asks_nobody_when_the_copy_is_intact(
    cache: ArtifactCache, version: ModelVersion, double: MlflowDouble
) -> None:
    """What was downloaded once is served again without MLflow."""
    first = cache.fetch(version)
    double.fault = Fault(500)
    assert cache.fetch(version) == first


@pytest.mark.parametrize("damage", ["changed", "missing", "manifest-torn", "manifest-foreign", "no-manifest"])
def test_fetch_downloads_again_when_the_copy_is_damaged(
    cache: ArtifactCache, version: ModelVersion, damage: str
) -> None:
    """A bad disk never becomes a bad model."""
    folder = cache.fetch(version).folder
    if damage == "changed":
        (folder / "files" / "model.onnx").write_bytes(WEIGHTS[:-1] + b"!")
    elif damage == "missing":
        (folder / "files" / "model.onnx").unlink()
    elif damage == "manifest-torn":
        (folder / "manifest.json").write_text('{"source":')
    elif damage == "manifest-foreign":
        (folder / "manifest.json").write_text("[]")
    else:
        (folder / "manifest.json").unlink()
    assert cache.open(folder) is None
    assert (cache.fetch(version).root / "model.onnx").read_bytes() == WEIGHTS


def test_fetch_resumes_where_it_was_cut_off(
    cache: ArtifactCache, version: ModelVersion, double: MlflowDouble, source: Path
) -> None:
    """The next try asks only for the rest, and nothing half-done has the final name."""
    large = WEIGHTS * 20
    (source / "model.onnx").write_bytes(large)
    double.cut_after_bytes = 1_500_000
    with pytest.raises(RegistryUnavailable, match="artifact proxy"):
        cache.fetch(version)
    assert not cache.folder_of(version).exists()
    double.cut_after_bytes = None
    cached = cache.fetch(version)
    assert double.ranges == [f"bytes={1 << 20}-"]
    assert (cached.root / "model.onnx").read_bytes() == large


def test_fetch_starts_over_when_the_server_ignores_the_range(
    cache: ArtifactCache, version: ModelVersion, source: Path
) -> None:
    """A part that is as long as the file, or longer, is no start of it."""
    part = cache.folder_of(version).with_name(cache.folder_of(version).name + ".partial")
    (part / "files").mkdir(parents=True)
    (part / "files" / "model.onnx.part").write_bytes(b"?" * (len(WEIGHTS) + 5))
    cached = cache.fetch(version)
    assert (cached.root / "model.onnx").read_bytes() == (source / "model.onnx").read_bytes()


def test_fetch_drops_files_when_an_earlier_attempt_left_them(
    cache: ArtifactCache, version: ModelVersion
) -> None:
    """A file the version does not have could change what it is."""
    folder = cache.folder_of(version)
    stale = folder.with_name(folder.name + ".partial") / "files" / "golden.npz"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    assert not (cache.fetch(version).root / "golden.npz").exists()


def test_fetch_is_refused_when_the_file_is_shorter_than_promised(
    cache: ArtifactCache, version: ModelVersion, double: MlflowDouble
) -> None:
    """Truncated in the artifact store: served never, fetched whole once it is right again."""
    double.lie_about_size = 7
    with pytest.raises(ArtifactRefused, match="the artifact store promised"):
        cache.fetch(version)
    double.lie_about_size = 0
    assert (cache.fetch(version).root / "model.onnx").read_bytes() == WEIGHTS


def test_fetch_is_refused_when_the_files_are_gone(
    cache: ArtifactCache, version: ModelVersion, source: Path
) -> None:
    """Deleted artifacts: the registry still names what the store lost."""
    shutil.rmtree(source)
    with pytest.raises(ArtifactRefused, match="has no files"):
        cache.fetch(version)


def test_fetch_is_refused_when_a_file_vanishes_after_the_listing(
    cache: ArtifactCache, version: ModelVersion, double: MlflowDouble
) -> None:
    """The listing promised it, the download answers 404."""
    double.extra_entries = [{"path": "ghost.bin", "is_dir": False, "file_size": 3}]
    with pytest.raises(ArtifactRefused, match=r"lost .*ghost\.bin"):
        cache.fetch(version)


def test_fetch_says_the_version_is_gone_when_the_registry_dropped_it(
    cache: ArtifactCache, version: ModelVersion, double: MlflowDouble
) -> None:
    """Deleted between the poll and the download."""
    del double.models["digits"].versions["1"]
    with pytest.raises(NotServed, match="has no version"):
        cache.fetch(version)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "..\\evil", "nul\x00byte"])
def test_fetch_is_refused_when_a_file_name_is_unsafe(
    cache: ArtifactCache, version: ModelVersion, double: MlflowDouble, tmp_path: Path, name: str
) -> None:
    """No listing writes outside the version's folder."""
    double.extra_entries = [{"path": name, "is_dir": False, "file_size": 1}]
    with pytest.raises(ArtifactRefused, match="unsafe file name"):
        cache.fetch(version)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "source"]


@pytest.mark.parametrize("scheme", ["s3", "file", "dbfs"])
def test_fetch_is_refused_by_name_when_the_scheme_is_not_read(
    cache: ArtifactCache, version: ModelVersion, double: MlflowDouble, scheme: str
) -> None:
    """The sentence says what it is and what would help."""
    double.scheme = scheme
    with pytest.raises(ArtifactRefused, match=f"lies at '{scheme}:'.*--serve-artifacts"):
        cache.fetch(version)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(500, where="/artifacts"), id="500"),
        pytest.param(Fault(200, b"<html>", where="/artifacts?"), id="html-listing"),
        pytest.param(Fault(200, b'{"files": [{"name": "x"}]}', where="/artifacts?"), id="other-fields"),
    ],
)
def test_fetch_is_unavailable_when_the_proxy_fails(
    cache: ArtifactCache, version: ModelVersion, double: MlflowDouble, fault: Fault
) -> None:
    """An outage is retried; it says nothing about the version."""
    double.fault = fault
    with pytest.raises(RegistryUnavailable, match="artifact proxy"):
        cache.fetch(version)


def test_fetch_downloads_once_when_two_threads_want_the_same_version(
    cache: ArtifactCache, version: ModelVersion, double: MlflowDouble
) -> None:
    """An abandoned load still downloads while the next one begins: they must not share a half file."""
    start = threading.Barrier(3)

    def fetch() -> dict[str, str]:
        start.wait()
        return dict(cache.fetch(version).sha256_by_path)

    with ThreadPoolExecutor(3) as threads:
        futures = [threads.submit(fetch) for _ in range(3)]
        results = [future.result() for future in futures]
    assert results[0] == results[1] == results[2]
    assert len(downloads(double)) == 4


def test_folder_differs_when_a_namesake_was_registered_anew(
    cache: ArtifactCache, version: ModelVersion
) -> None:
    """Same model name, same number, other artifact."""
    assert cache.folder_of(version) != cache.folder_of(replace(version, created_ms=version.created_ms + 1))
    assert cache.folder_of(version) != cache.folder_of(replace(version, source="models:/m-other"))


@pytest.mark.parametrize(
    "name", ["../../etc", ".", "..", ".hidden", "a b", "%2E", "name\nwith line", "模" * 250, "x" * 256]
)
def test_folder_is_one_bounded_component_when_the_name_is_odd(
    cache: ArtifactCache, version: ModelVersion, tmp_path: Path, name: str
) -> None:
    """Nothing a model can be called leaves the cache or is longer than a file name may be."""
    folder = cache.folder_of(replace(version, ref=VersionRef(name, "1"))).parent
    assert folder.parent == tmp_path / "cache"
    assert len(folder.name.encode()) <= 255
    assert folder.name not in (".", "..")


def test_folders_differ_when_long_names_begin_alike(cache: ArtifactCache, version: ModelVersion) -> None:
    """Cutting a name must not merge two models."""
    one, other = (replace(version, ref=VersionRef("模" * 200 + end, "1")) for end in ("a", "b"))
    assert cache.folder_of(one).parent != cache.folder_of(other).parent


class TestTrim:
    """Three copies, oldest first, in a cache that has room for one."""

    @pytest.fixture
    def folders(
        self, double: MlflowDouble, source: Path, cache: ArtifactCache, registry: Registry
    ) -> list[Path]:
        double.add("digits", source, source)
        return [cache.fetch(registry.version(VersionRef("digits", str(n)))).folder for n in (1, 2, 3)]

    @pytest.fixture
    def small(self, tmp_path: Path, client: httpx.Client, registry: Registry) -> ArtifactCache:
        return ArtifactCache(tmp_path / "cache", client, registry, limit_bytes=len(WEIGHTS) + 2000)

    def test_trim_removes_the_least_recently_opened_first(
        self, small: ArtifactCache, folders: list[Path]
    ) -> None:
        """Opening a copy makes it young again."""
        assert small.open(folders[0]) is not None
        assert small.trim(frozenset()) == [folders[1], folders[2]]
        assert folders[0].exists()

    def test_trim_keeps_what_is_served(self, small: ArtifactCache, folders: list[Path]) -> None:
        """Also where the limit is then exceeded."""
        assert small.trim(frozenset(folders[:2])) == [folders[2]]

    def test_trim_keeps_what_is_being_fetched(self, small: ArtifactCache, folders: list[Path]) -> None:
        """A download must not lose its folder under its feet."""
        with exclusive(folders[0].with_name(folders[0].name + ".lock")):
            removed = small.trim(frozenset())
        assert folders[0] not in removed

    def test_trim_removes_nothing_when_all_fits(self, cache: ArtifactCache, folders: list[Path]) -> None:
        """Room is there to be used."""
        assert cache.trim(frozenset()) == []
