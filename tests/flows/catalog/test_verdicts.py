"""The command's verdict on every kind of version, and that no faulty one is ever promoted."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from flows.benchmark_model import benchmarker
from flows.rollout.keeper import holder_of
from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.parts import Parts
from flows.rollout.promotion import Asked, record, work
from flows.validate_model import validator
from flows.wiring import wired
from serving.core.model import Alias
from serving.store.rollouts import Entry
from tests.flows.catalog.verdict_table import Bench, bench
from tests.flows.catalog.versions import CASES, Case
from tests.mlflow_server import MlflowServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]

FAULTY = [case for case in CASES if case.is_faulty]


@pytest.fixture(scope="module")
def place(mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(mlflow_server.url, tmp_path_factory.mktemp("verdicts")) as place:
        yield place


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_version_gets_its_verdict_when_validated(place: Bench, case: Case) -> None:
    """Verdict, reason and exit code, and the verdict as a tag on the version."""
    version = place.add(case)
    said = place.validate(version)
    assert said.verdict == str(case.verdict), said.report
    assert case.words in said.message(case.check)
    failed = case.verdict.value == "failed"
    assert said.exit_code == (1 if failed else 0)
    tags = place.model.tags(version)
    assert tags["signalbox.validation"] == ("failed" if failed else "passed")
    assert tags["signalbox.validation_summary"].startswith(f"{place.model.name} version {version}")


def test_changed_signature_passes_when_it_is_allowed(place: Bench) -> None:
    """The change stays a warning, and is named."""
    [case] = [case for case in CASES if case.name == "wrong signature"]
    said = place.validate(place.add(case), "--allow-signature-change")
    assert (said.verdict, said.exit_code) == ("warning", 0)
    assert said.message("contract").startswith("the signature changes, which was allowed: output 'y'")


@pytest.mark.fault("F12")
@pytest.mark.parametrize("case", FAULTY, ids=lambda case: case.name)
def test_faulty_version_is_refused_when_promoted(place: Bench, case: Case) -> None:
    """Raising, hanging, off its declaration or taking all memory: the champion stays, with a reason."""
    champion, version = place.model.champion(), place.add(case)
    outcome = promoted(place, version)
    assert outcome.verdict is Verdict.REFUSED, outcome.reason
    assert case.words in outcome.reason
    assert place.model.champion() == champion
    assert place.model.tags(version)["signalbox.validation"] == "failed"


def promoted(place: Bench, version: str) -> Outcome:
    """A promotion in this process, as the flow carries it out."""
    with wired(place.settings) as wiring:
        asked = Asked(model=place.model.name, version=version, asked_at=wiring.clock.now(), by="anna")
        entry = record(wiring.engine, wiring.registry, asked, wiring.clock)
        assert isinstance(entry, Entry), entry
        parts = Parts(
            wiring.engine,
            wiring.registry,
            wiring.guard,
            wiring.clock,
            validator(wiring),
            benchmarker(wiring),
        )
        outcome = work(entry.rollout, parts, wiring.leases, holder_of(uuid4().hex), lambda sentence: None)
        assert wiring.registry.alias(place.model.name, Alias.CHALLENGER) is None
        return outcome
