"""Prometheus's own check of a text of metrics (Debian package `prometheus`)."""

import os
import shutil
import subprocess

import pytest


def complaints(text: str) -> str:
    """What `promtool check metrics` says, empty if all is well; skips the test where it is missing."""
    program = shutil.which("promtool")
    if program is None:
        missing = "promtool is not installed (Debian package `prometheus`)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    done = subprocess.run(
        [program, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    said = (done.stdout + done.stderr).strip()
    return said if done.returncode or said else ""
