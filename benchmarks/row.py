"""One line of the result: what was measured, beside what, and whether the target is met.

A ratio is formed from medians of interleaved repeats, so that a busy machine slows both sides alike.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

_NOT_MEASURED = "not measured"
_LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class Row:
    """`is_met` is None where nothing is promised, or where a side could not be measured."""

    target: str
    what: str
    ours: str
    peer: str
    ratio: str
    promised: str
    is_met: bool | None
    note: str = ""

    @property
    def is_measured(self) -> bool:
        return self.ours != _NOT_MEASURED


def at_least(
    target: str, what: str, ours: Sequence[float], peer: Sequence[float], least: float, unit: str
) -> Row:
    """More is better: our median over the peer's, against the least it must be."""
    return _ratio(target, what, ours, peer, unit, f"≥ {least:g} ×", lambda ratio: ratio >= least)


def at_most(
    target: str, what: str, ours: Sequence[float], peer: Sequence[float], most: float, unit: str
) -> Row:
    """Less is better: our median over the peer's, against the most it may be."""
    return _ratio(target, what, ours, peer, unit, f"≤ {most:g} ×", lambda ratio: ratio <= most)


def within(target: str, what: str, ours: float, most: float, unit: str, note: str = "") -> Row:
    """An absolute promise to users."""
    return Row(target, what, f"{ours:.4g} {unit}", "", "", f"≤ {most:g} {unit}", ours <= most, note)


def none_of(target: str, what: str, count: int, total: int) -> Row:
    """What must never happen, out of how many times it could have."""
    return Row(target, what, f"{count} of {total}", "", "", "0", count == 0 and total > 0)


def missing(target: str, what: str, why: str) -> Row:
    return Row(target, what, _NOT_MEASURED, "", "", "", None, why)


def attempted(target: str, what: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """What was measured, or one line that says why not: one trouble must not cost all the rest."""
    try:
        return measure()
    except Exception as error:
        first = _first(error)
        told = " ".join(f"{type(first).__name__}: {first}".split())
        return [missing(target, what, told[:_LONGEST_REASON])]


def _first(error: BaseException) -> BaseException:
    """What went wrong first: of a group its first member, and not what failed while cleaning up after it."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif error.__context__ is not None and not error.__suppress_context__:
            error = error.__context__
        else:
            return error


def _ratio(
    target: str,
    what: str,
    ours: Sequence[float],
    peer: Sequence[float],
    unit: str,
    promised: str,
    is_met: Callable[[float], bool],
) -> Row:
    mine, theirs = median(ours), median(peer)
    ratio = mine / theirs if theirs else float("inf")
    spread = f"{min(ours):.4g} to {max(ours):.4g}"
    return Row(
        target,
        what,
        f"{mine:.4g} {unit}",
        f"{theirs:.4g} {unit}",
        f"{ratio:.2f}",
        promised,
        is_met(ratio),
        f"{len(ours)} repeats, ours {spread}",
    )


def show(rows: Iterable[Row]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("target", "what", "ours", "peer", "ratio", "promised", "", "note"):
        table.add_column(column, overflow="fold")
    for row in rows:
        verdict = {True: "pass", False: "short", None: "-"}[row.is_met]
        table.add_row(row.target, row.what, row.ours, row.peer, row.ratio, row.promised, verdict, row.note)
    Console(width=180, highlight=False, markup=False).print(table)
