"""All cases, in the order of their numbers."""

from tests.conformance import core_cases, extension_cases
from tests.conformance.case import Case

CASES: tuple[Case, ...] = tuple(
    case for chapter in (*core_cases.CHAPTERS, *extension_cases.CHAPTERS) for case in chapter.cases
)
