"""The log for machines keeps values apart and typed; neither form shows a secret."""

import json
import logging
import sys
from typing import Any

import pytest

from serving.core.model import VersionRef
from serving.logs import JsonLines, TextLines, bound_request, redacted


def record(template: str, *values: object, error: bool = False, name: str = "serving.x") -> logging.LogRecord:
    told = sys.exc_info() if error else None
    return logging.LogRecord(name, logging.WARNING, "x.py", 1, template, values, told)


def told(template: str, *values: object, error: bool = False) -> dict[str, Any]:
    line = JsonLines().format(record(template, *values, error=error))
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_values_are_named_and_typed() -> None:
    """As they were given, not as they were printed."""
    line = told(
        "swapped_in version=%s mb=%d seconds=%.1f reason=%r", VersionRef("m", "3"), 12, 1.25, OSError("x")
    )
    assert (line["event"], line["level"], line["logger"]) == ("swapped_in", "warning", "serving.x")
    assert (line["model"], line["version"], line["mb"], line["seconds"]) == ("m", "3", 12, 1.25)
    assert line["reason"] == "OSError('x')"


@pytest.mark.parametrize(
    ("template", "values", "event", "detail"),
    [
        pytest.param(
            "registry_%s %s", ("stale", "MLflow is away"), "registry_stale", "MLflow is away", id="part"
        ),
        pytest.param("refused model=%s %s", ("m", "too large"), "refused", "too large", id="rest"),
        pytest.param("", (), "message", "", id="empty"),
    ],
)
def test_what_has_no_name_is_the_detail(
    template: str, values: tuple[object, ...], event: str, detail: str
) -> None:
    """Of lines of other libraries all of it."""
    line = told(template, *values)
    assert (line["event"], line["detail"]) == (event, detail)


def test_line_of_another_library_is_its_text() -> None:
    """Its words are no events of ours."""
    line = json.loads(JsonLines().format(record("started server [%d]", 7, name="uvicorn.error")))
    assert (line["event"], line["detail"], line["logger"]) == (
        "message",
        "started server [7]",
        "uvicorn.error",
    )


def test_traceback_is_a_value_of_the_same_line() -> None:
    """A line is one object, whatever was raised."""
    try:
        raise ValueError("odd\ninput")
    except ValueError:
        line = told("turn_failed", error=True)
    assert line["event"] == "turn_failed"
    assert "ValueError: odd" in line["traceback"]


def test_request_is_bound_to_every_line() -> None:
    """In both forms, once."""
    token = bound_request.set("r-7")
    try:
        assert told("turn_failed")["request_id"] == "r-7"
        text = TextLines("%(message)s")
        assert text.format(record("turn_failed")) == "turn_failed request_id=r-7"
        assert text.format(record("turn_failed request_id=%s", "r-8")) == "turn_failed request_id=r-8"
    finally:
        bound_request.reset(token)
    assert "request_id" not in told("turn_failed")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("postgresql://user:hunter2@host/db", "postgresql://***@host/db", id="address"),
        pytest.param("Authorization: Bearer abcdefgh12345", "Authorization: Bearer ***", id="bearer"),
        pytest.param("password=hunter2 x=1", "password=*** x=1", id="password"),
        pytest.param("{'api_key': 'kkkk'}", "{'api_key': '***'}", id="key in a mapping"),
        pytest.param("X-API-Key: kkkk", "X-API-Key: ***", id="header"),
        pytest.param("http://host:5000/path?x=1", "http://host:5000/path?x=1", id="nothing secret"),
        pytest.param("tokens=5 key=abc", "tokens=5 key=abc", id="other names"),
    ],
)
def test_credentials_are_taken_out(text: str, shown: str) -> None:
    """Whoever logged them."""
    assert redacted(text) == shown
    assert told("store_away reason=%s", text)["reason"] == shown
    assert TextLines("%(message)s").format(record("store_away reason=%s", text)).endswith(shown)
