"""The settings table of README.md against the code; run as a program, it prints the table."""

from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from flows.settings import FlowSettings
from serving.settings import ServingSettings

README = Path(__file__).parents[1] / "README.md"
READERS: tuple[tuple[str, type[BaseSettings]], ...] = (
    ("serving", ServingSettings),
    ("commands", FlowSettings),
)
HEAD = ("| variable | default | read by | what it is |", "|---|---|---|---|")


def _fields() -> dict[str, dict[str, FieldInfo]]:
    """Every field by name, then by who reads it."""
    found: dict[str, dict[str, FieldInfo]] = {}
    for reader, settings in READERS:
        for name, field in settings.model_fields.items():
            found.setdefault(name, {})[reader] = field
    return found


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return "" if default in (None, "") else f"`{default}`"


def _rows() -> Iterator[str]:
    for name, by_reader in _fields().items():
        field = next(iter(by_reader.values()))
        readers = "both" if len(by_reader) == len(READERS) else next(iter(by_reader))
        shown = _shown(field.get_default(call_default_factory=True, validated_data={}))
        yield f"| `SIGNALBOX_{name.upper()}` | {shown} | {readers} | {field.description} |"


def test_readme_table_matches_settings_when_generated() -> None:
    """Each setting stands in README with its default and description, and nothing else does."""
    lines = README.read_text().splitlines()
    assert HEAD[0] in lines, "README has no settings table"
    start = lines.index(HEAD[0]) + len(HEAD)
    end = next((at for at in range(start, len(lines)) if not lines[at].startswith("|")), len(lines))
    assert lines[start:end] == list(_rows()), "run `python -m tests.test_settings_table` and paste its output"


def test_shared_settings_agree_when_both_processes_read_them() -> None:
    """A variable that both processes read means the same to both."""
    offences = [
        name
        for name, by_reader in _fields().items()
        if len({(str(field.default), field.description) for field in by_reader.values()}) > 1
    ]
    assert offences == []


def test_settings_say_what_they_are_when_listed() -> None:
    """Every field of every process has a description."""
    assert [name for name, by in _fields().items() for field in by.values() if not field.description] == []


if __name__ == "__main__":
    print(*HEAD, *_rows(), sep="\n")
