"""Being interrupted, in real processes: once it counts, at the end it does not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

STORY = """
import signal
from flows.cli.interruption import go_undisturbed, interruptible
try:
    with interruptible():
        print("ready", flush=True)
        signal.pause()
except KeyboardInterrupt:
    go_undisturbed()
    print("interrupted", flush=True)
    input()
    print("stopped", flush=True)
"""


def started(ignores_lost_terminal: bool = False) -> subprocess.Popen[str]:
    hold = "signal.signal(signal.SIGHUP, signal.SIG_IGN)" if ignores_lost_terminal else ""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", f"import signal\n{hold}\n{STORY}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_clearing_up_is_not_disturbed_when_signals_come_again(number: signal.Signals) -> None:
    """Ctrl-C, a request to end and a lost terminal interrupt once, and none of them twice."""
    with started() as process:
        assert next_line(process) == "ready"
        process.send_signal(number)
        assert next_line(process) == "interrupted"
        for again in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(again)
        said, _ = process.communicate("\n", timeout=30)
    assert (said.strip(), process.returncode) == ("stopped", 0)


def test_lost_terminal_is_ignored_when_it_was_before() -> None:
    """As `nohup` arranges it."""
    with started(ignores_lost_terminal=True) as process:
        assert next_line(process) == "ready"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert next_line(process) == "interrupted"
        process.communicate("\n", timeout=30)
    assert process.returncode == 0
