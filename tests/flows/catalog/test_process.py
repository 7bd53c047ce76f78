"""The process of its own: what hangs or dies in it is a finding, and nothing is left behind."""

import signal
import threading
from pathlib import Path
from time import monotonic

import psutil
import pytest

from flows.catalog.checks import judge
from flows.catalog.facts import Facts, Side
from flows.catalog.process import measured
from flows.catalog.verdict import CheckName, Verdict, overall
from tests.flows.catalog.folders import QUICK, task
from tests.models import describe, onnx_echo, save_torch_script
from tests.waiting import until

# Loading tries nothing out: with both sides declared, the first answer is the self-test's.
PAIR = [("x", "float32", [-1, 3])]
ENDLESS = """\
def forward(self, x: Tensor) -> Tensor:
    while bool((x * 0 == 0).all()):
        x = x + 0
    return x
"""


def endless(folder: Path) -> Path:
    return describe(save_torch_script(folder, ENDLESS), inputs=PAIR, outputs=PAIR)


def message(name: CheckName, facts: Facts) -> str:
    return next(check.message for check in judge(facts, QUICK) if check.name is name)


def measuring(work: Path) -> psutil.Process | None:
    """The measuring process of this working folder, found among our children."""
    for child in psutil.Process().children(recursive=True):
        try:
            if str(work / "task.json") in child.cmdline():
                return child
        except psutil.Error:
            continue
    return None


@pytest.mark.integration
def test_facts_come_back_when_the_process_ends_well(tmp_path: Path) -> None:
    """The same facts as in this process, and the process peaked at some size."""
    root = onnx_echo(tmp_path / "echo")
    facts = measured(task(root, root), tmp_path)
    assert overall(judge(facts, QUICK)) is Verdict.PASSED
    assert facts.interrupted is None
    assert facts.step is None
    assert facts.peak_bytes > 1 << 20


@pytest.mark.integration
def test_hanging_version_fails_at_its_deadline_when_asked(tmp_path: Path) -> None:
    """The report says that it hung and doing what; the process is gone."""
    started = monotonic()
    facts = measured(task(endless(tmp_path / "endless"), deadline_seconds=8.0), tmp_path)
    assert monotonic() - started < 20
    expected = "hanging: there was no end within 8 s while the candidate was answering its self-test"
    assert message(CheckName.COMPLETES, facts) == expected
    assert message(CheckName.LOADS, facts).startswith("loaded in")
    assert overall(judge(facts, QUICK)) is Verdict.FAILED
    assert measuring(tmp_path) is None


@pytest.mark.integration
@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGSEGV, "died of SIGSEGV"), (signal.SIGKILL, "most likely for want of memory")],
)
def test_crash_is_reported_when_the_process_dies(tmp_path: Path, number: signal.Signals, said: str) -> None:
    """A process that is killed while the version answers, as a crash or a lack of memory does it."""
    root = endless(tmp_path / "endless")
    found: list[Facts] = []
    work = threading.Thread(target=lambda: found.append(measured(task(root), tmp_path)), daemon=True)
    work.start()
    facts_file = tmp_path / "facts.json"
    until(lambda: facts_file.exists() and "self-test" in facts_file.read_text(), "it is asked", seconds=60)
    process = measuring(tmp_path)
    assert process is not None
    process.send_signal(number)
    work.join(timeout=30)
    assert said in message(CheckName.COMPLETES, found[0])
    assert "while the candidate was answering its self-test" in message(CheckName.COMPLETES, found[0])
    assert overall(judge(found[0], QUICK)) is Verdict.FAILED


@pytest.mark.integration
def test_champion_is_left_out_when_it_is_the_champion_that_hangs(tmp_path: Path) -> None:
    """The candidate that would replace a hanging champion is judged by itself."""
    rival = endless(tmp_path / "endless")
    facts = measured(task(onnx_echo(tmp_path / "good"), rival, deadline_seconds=8.0), tmp_path)
    assert overall(judge(facts, QUICK)) is Verdict.PASSED
    assert facts.champion is not None
    assert "hanging" in (facts.champion.problem or "")
    assert "champion 1 could not be measured" in message(CheckName.CONTRACT, facts)


@pytest.mark.integration
def test_own_failure_is_told_when_the_task_cannot_be_read(tmp_path: Path) -> None:
    """The last line of what the process printed stands in the sentence."""
    facts = measured(task(tmp_path / "echo", threads=None), tmp_path)
    assert "ended with exit code 1" in message(CheckName.COMPLETES, facts)
    assert facts.step is None or facts.step.side is Side.CANDIDATE
