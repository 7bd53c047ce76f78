"""Fixtures every test may use, and the count of faults recovered that ends a test run."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import pytest

from serving.store.database import upgrade
from tests.faults import Tally, fault_names
from tests.homes import prepare_home
from tests.mlflow_double import MlflowDouble
from tests.mlflow_server import MlflowServer
from tests.postgres import PostgresServer, binaries
from tests.prefect_server import PrefectServer

_TALLY = pytest.StashKey[Tally]()
_FAULTS = "faults"


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One MLflow server for the session; use model names of your own, and start again what you stop."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow-home"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One cluster for the session; a build server without PostgreSQL fails, a developer's machine skips."""
    bin_folder = binaries()
    if bin_folder is None:
        missing = "PostgreSQL's initdb and pg_ctl are not installed (Debian package `postgresql`)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    server = PostgresServer(bin_folder)
    server.start()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An upgraded, empty store to copy: migrating takes longer than most tests."""
    file = tmp_path_factory.mktemp("template") / "signalbox.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def home(tmp_path: Path, store_template: Path) -> Path:
    """A server's home with a store and an admin key."""
    return prepare_home(tmp_path / "home", store_template)


@pytest.fixture
def double() -> Iterator[MlflowDouble]:
    """A registry without models, for tests that cannot wait for MLflow."""
    with MlflowDouble() as double:
        yield double


@pytest.fixture(scope="session")
def prefect_server(
    tmp_path_factory: pytest.TempPathFactory, mlflow_server: MlflowServer
) -> Iterator[PrefectServer]:
    """One Prefect server with a worker and our deployments; its flows see models called `flow-*` only."""
    server = PrefectServer(tmp_path_factory.mktemp("prefect") / "home", mlflow_server.url)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def pytest_configure(config: pytest.Config) -> None:
    tally = config.stash[_TALLY] = Tally()
    config.pluginmanager.register(Counting(tally))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What a test injects goes with its reports: the process that counts may be another one."""
    if session.config.option.collectonly:
        return
    for item in session.items:
        for mark in item.iter_markers("fault"):
            try:
                names = fault_names(mark.args)
            except ValueError as error:
                raise pytest.UsageError(f"{item.nodeid}: {error}") from None
            session.config.stash[_TALLY].expect(item.nodeid, names)
            item.user_properties.append((_FAULTS, names))


class Counting:
    """Counts what the reports tell, in the process that prints: one of several only runs tests."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, faults in report.user_properties:
            if name == _FAULTS:
                self._tally.expect(report.nodeid, tuple(map(str, cast(Iterable[object], faults))))
        self._tally.note(report.nodeid, is_call=report.when == "call", passed=report.passed)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A fault that was not recovered from fails the run, also where its test was merely skipped."""
    if _is_one_of_several(session.config):
        return
    if exitstatus == pytest.ExitCode.OK and not session.config.stash[_TALLY].is_complete:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tally = config.stash[_TALLY]
    if tally.injected:
        terminalreporter.section("faults")
        for line in tally.lines():
            terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The very last line of a run that injected any fault."""
    tally = config.stash.get(_TALLY, None)
    if tally is not None and tally.injected and not _is_one_of_several(config):
        config.get_terminal_writer().line(str(tally))


def _is_one_of_several(config: pytest.Config) -> bool:
    """Whether this process only runs tests, and reports to the one that distributes them."""
    return hasattr(config, "workerinput")
