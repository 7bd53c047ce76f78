"""How commands print: tables for people, JSON for machines, plain lines that never wrap."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

_PIPED_WIDTH = 240

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def say(line: str, *, end: str = "\n") -> None:
    """One line of plain text, out at once, as a reader may be waiting for it."""
    print(line, end=end, flush=True)


def warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """A table as wide as the terminal; `empty` stands in where there are no rows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    if not table.row_count:
        say(empty)
        return
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False, markup=False).print(table)


def text(value: Any) -> str:
    """A cell: a dash where there is nothing to show."""
    if value is None or value == "":
        return "-"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
