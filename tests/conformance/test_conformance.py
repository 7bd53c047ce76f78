"""Every case of the suite against the server under test, by default our own."""

import pytest

from tests.conformance.__main__ import main
from tests.conformance.case import Case, Outcome
from tests.conformance.suite import CASES
from tests.conformance.target import Target, Tensor

pytestmark = pytest.mark.integration

_URGENCY = (Outcome.FAILED, Outcome.PASSED, Outcome.SKIPPED)


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_server_conforms(targets: list[Target], case: Case) -> None:
    """A case that no model can show says why."""
    results = [case.run(target) for target in targets]
    result = min(results, key=lambda result: _URGENCY.index(result.outcome))
    if result.outcome is Outcome.SKIPPED:
        pytest.skip(result.reason)
    assert result.outcome is Outcome.PASSED, f"{result.reason} [{case.source}]"


def test_numbers_are_unique_and_ascending() -> None:
    """A case keeps its number in every report."""
    numbers = [case.number for case in CASES]
    assert numbers == sorted(set(numbers))


def test_runner_prints_a_line_per_case(targets: list[Target], capsys: pytest.CaptureFixture[str]) -> None:
    """And tells by its exit code whether one failed."""
    target = targets[0]
    code = main([target.url, "--model", target.model, "--key", target.key])
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first == f"{target.url} model {target.model}"
    assert len(lines) == len(CASES)
    assert ("0 failed" in last) is (code == 0)


def test_runner_fails_when_a_case_does(targets: list[Target], capsys: pytest.CaptureFixture[str]) -> None:
    """A model that is not there conforms to little."""
    assert main([targets[0].url, "--model", "no-such-model", "--input", "x:FP32:-1,3"]) == 1
    assert "failed  04 model is ready" in capsys.readouterr().out


def test_input_is_read_from_the_command_line() -> None:
    """A name may hold colons."""
    assert Tensor.parse("a:b:FP32:-1,3") == Tensor("a:b", "FP32", (-1, 3))
    assert Tensor.parse("x:BYTES:") == Tensor("x", "BYTES", ())
