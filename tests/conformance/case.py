"""A conformance case: its number, what it asks, where the protocol says so, and the check itself."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import httpx

from tests.conformance.target import Target

Check = Callable[[Target], None]


class NotApplicable(Exception):
    """The model cannot show it; the reason is told."""


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Result:
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """`source` is the paragraph; with `extension` it counts only where the server says it has that."""

    number: int
    title: str
    source: str
    check: Check
    extension: str | None = None

    @property
    def id(self) -> str:
        return f"{self.number:02}-{self.title.replace(' ', '-')}"

    def run(self, target: Target) -> Result:
        if self.extension is not None and self.extension not in target.extensions:
            return Result(Outcome.SKIPPED, f"extension {self.extension} is not offered")
        try:
            self.check(target)
        except NotApplicable as reason:
            return Result(Outcome.SKIPPED, str(reason))
        except AssertionError as error:
            return Result(Outcome.FAILED, " ".join(str(error).split())[:300] or "an assertion")
        except (httpx.HTTPError, KeyError, TypeError, ValueError, AttributeError) as error:
            return Result(Outcome.FAILED, f"unusable answer: {type(error).__name__} {error}"[:300])
        return Result(Outcome.PASSED)


class Chapter:
    """Collects cases in order. `source` is what its cases' paragraphs are in."""

    def __init__(self, source: str, first: int, extension: str | None = None) -> None:
        self.cases: list[Case] = []
        self._source = source
        self._first = first
        self._extension = extension

    def case(self, title: str, paragraph: str) -> Callable[[Check], Check]:
        def add(check: Check) -> Check:
            number = self._first + len(self.cases)
            source = f"{self._source}, {paragraph}"
            self.cases.append(Case(number, title, source, check, self._extension))
            return check

        return add


def check_refused(answer: httpx.Response) -> None:
    """A refusal is a client error whose body is the protocol's error object."""
    assert 400 <= answer.status_code < 500, f"status {answer.status_code}: {answer.text[:200]}"
    told = answer.json()
    assert isinstance(told, dict), told
    assert isinstance(told.get("error"), str), told
