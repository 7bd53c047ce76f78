"""The process of its own: what hangs or dies in it is a finding, and nothing is left behind."""

import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic

import psutil
import pytest

from flows.catalog.checks import judge
from flows.catalog.facts import Facts, Side
from flows.catalog.process import ended, measured
from flows.catalog.task import Kin
from flows.catalog.verdict import CheckName, Verdict, overall
from tests.flows.catalog.folders import QUICK, task
from tests.models import describe, onnx_echo, save_torch_script, torch_adder
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


def looping(folder: Path, line: str) -> Path:
    """A script that repeats `line` as long as an element of its input is a number."""
    source = f"""\
def forward(self, x: Tensor) -> Tensor:
    kept = [x]
    while bool((x * 0 == 0).all()):
        {line}
    return kept[0]
"""
    return describe(save_torch_script(folder, source), inputs=PAIR, outputs=PAIR)


@pytest.mark.integration
@pytest.mark.fault("F12")
def test_hungry_version_fails_at_its_limit_when_asked(tmp_path: Path) -> None:
    """A script that keeps 4 MB more at each turn is ended at the limit, long before the machine is full."""
    root = looping(tmp_path / "hungry", "kept.append(torch.ones(1000000) + x.sum())")
    facts = measured(task(root, memory_mb=900.0), tmp_path)
    expected = "memory-hungry: it held more than the limit of 900 MB while the candidate was answering"
    assert message(CheckName.COMPLETES, facts).startswith(expected)
    assert overall(judge(facts, QUICK)) is Verdict.FAILED
    assert measuring(tmp_path) is None


@pytest.mark.integration
@pytest.mark.fault("F12")
def test_silent_version_fails_before_the_deadline_when_asked(tmp_path: Path) -> None:
    """No answer for so long is a hang, however much time the whole has left."""
    facts = measured(task(endless(tmp_path / "endless"), silence_seconds=2.0), tmp_path)
    said = message(CheckName.COMPLETES, facts)
    assert said == "hanging: there was no answer within 2 s while the candidate was answering its self-test"


@pytest.mark.integration
def test_silent_champion_is_left_out_when_time_is_left(tmp_path: Path) -> None:
    """The candidate is measured without it, in what remains."""
    good, rival = onnx_echo(tmp_path / "good"), endless(tmp_path / "endless")
    facts = measured(task(good, rival, silence_seconds=2.0), tmp_path)
    assert overall(judge(facts, QUICK)) is Verdict.PASSED
    assert facts.champion is not None
    assert "no answer within 2 s" in (facts.champion.problem or "")


@pytest.mark.integration
def test_sibling_is_left_out_when_it_is_the_sibling_that_hangs(tmp_path: Path) -> None:
    """A version that only claims to be alike cannot fail another."""
    kin = (Kin("digits/7", endless(tmp_path / "endless")), Kin("digits/8", onnx_echo(tmp_path / "alike")))
    facts = measured(task(onnx_echo(tmp_path / "good"), kin=kin, silence_seconds=2.0), tmp_path)
    checks = {check.name: check for check in judge(facts, QUICK)}
    assert overall(checks.values()) is Verdict.PASSED
    assert "not compared with digits/7: hanging" in checks[CheckName.PARITY].message


ON_LARGE = """\
def forward(self, x: Tensor) -> Tensor:
    while bool((x > 1000).any()):
        x = x + 0
    return x
"""


@pytest.mark.integration
@pytest.mark.parametrize("is_new", [True, False])
def test_hang_on_odd_input_counts_when_only_the_candidate_does(tmp_path: Path, is_new: bool) -> None:
    """All else stays measured; what the champion dies of as well says nothing."""
    bad = describe(save_torch_script(tmp_path / "bad", ON_LARGE), inputs=PAIR, outputs=PAIR)
    good = describe(torch_adder(tmp_path / "good", 0.0), inputs=PAIR, outputs=PAIR)
    facts = measured(task(bad, good if is_new else bad, silence_seconds=2.0), tmp_path)
    checks = {check.name: check for check in judge(facts, QUICK)}
    assert checks[CheckName.COMPLETES].verdict is Verdict.PASSED
    assert checks[CheckName.DETERMINISM].verdict is Verdict.PASSED
    odd = checks[CheckName.ODD_INPUTS]
    assert odd.verdict is (Verdict.FAILED if is_new else Verdict.NOT_MEASURED)
    assert "answering the large values" in odd.message


@pytest.mark.integration
def test_group_is_ended_when_the_process_left_children(tmp_path: Path) -> None:
    """Whatever the process started ends with it, though it has ended itself."""
    program = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, "it ends")
    assert ended(process) == 0
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "its child ended")
    process.stdout.close()
