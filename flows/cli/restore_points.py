"""`signalbox restore-points`: what models were like, on record; made by hand, shown and compared with now."""

import getpass
from typing import Annotated, Any
from uuid import uuid4

import typer

from flows.cli.console import AsJson, print_json, print_table, say, text
from flows.cli.store import opened_store
from flows.wiring import Wiring, wired
from serving.store import restore_points
from serving.store.capture import Wanted, captured, make
from serving.store.database import check
from serving.store.restore_points import Kind, RestorePoint
from serving.store.snapshot import Difference, differences, public_settings

restore_points_app = typer.Typer(
    help="Show restore points, make one, or compare one with the present.", invoke_without_command=True
)

_COLUMNS = ("restore point", "model", "at", "kind", "champion", "restorable", "by", "reason")
_DEFAULT_ROWS = 20

Model = Annotated[str | None, typer.Option("--model", "-m", help="Only those of this model.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")]
Id = Annotated[str, typer.Argument(help="The restore point, or the beginning of its id.")]


@restore_points_app.callback()
def _list_by_default(
    context: typer.Context, model: Model = None, limit: Limit = _DEFAULT_ROWS, as_json: AsJson = False
) -> None:
    if context.invoked_subcommand is None:
        show_all(model, limit, as_json)


@restore_points_app.command("list")
def show_all(model: Model = None, limit: Limit = _DEFAULT_ROWS, as_json: AsJson = False) -> None:
    """Show restore points, newest first."""
    with opened_store() as engine:
        check(engine)
        found = restore_points.listed(engine, model, limit)
    if as_json:
        print_json([_brief(point) for point in found])
        return
    print_table(_COLUMNS, map(_cells, found), empty="no restore point yet; a promotion makes one")


@restore_points_app.command()
def create(
    model: Annotated[str, typer.Argument(help="The registered model.")],
    reason: Annotated[str, typer.Option(help="What it is for.")] = "made by hand",
    as_json: AsJson = False,
) -> None:
    """Keep what a model, its traffic and the system are like now."""
    with wired() as wiring:
        check(wiring.engine)
        by = f"unverified:{getpass.getuser()}"
        settings = public_settings(wiring.settings)
        wanted = Wanted(uuid4().hex, model, Kind.BY_HAND, reason, by, settings)
        point = make(wiring.engine, wiring.registry, wanted, wiring.clock.now())
    if as_json:
        print_json(point.as_json())
    else:
        say(f"restore point {point.id}: version {point.champion or 'none'} is champion of {model}")


@restore_points_app.command()
def show(point_id: Id, as_json: AsJson = False) -> None:
    """Show all that one restore point holds."""
    with opened_store() as engine:
        check(engine)
        point = restore_points.get(engine, point_id)
    if as_json:
        print_json(point.as_json())
        return
    say(f"restore point {point.id} of {point.model}, {point.created_at.isoformat(timespec='seconds')}")
    say(f"{point.reason}; made by {point.created_by}")
    say(f"restorable: {_restorable(point)}")
    rows = [(each.path, text(each.then)) for each in differences(point.state, {})]
    print_table(("what", "value"), rows, empty="it holds nothing")


@restore_points_app.command()
def diff(
    point_id: Id,
    other: Annotated[
        str | None, typer.Argument(help="Another restore point; by default the present.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what changed since a restore point, or between two."""
    with wired() as wiring:
        check(wiring.engine)
        point = restore_points.get(wiring.engine, point_id)
        found = differences(point.state, _other(wiring, point, other))
    if as_json:
        print_json([each.as_json() for each in found])
        return
    now = f"in {other}" if other else "now"
    print_table(("what", "then", now), map(_difference_cells, found), empty="nothing has changed")


def _other(wiring: Wiring, point: RestorePoint, other: str | None) -> Any:
    if other is not None:
        return restore_points.get(wiring.engine, other).state
    settings = public_settings(wiring.settings)
    now = wiring.clock.now()
    return captured(wiring.engine, wiring.registry, point.model, settings, now)


def _brief(point: RestorePoint) -> dict[str, Any]:
    """A point without its state, which `show` has."""
    return {name: value for name, value in point.as_json().items() if name != "state"}


def _cells(point: RestorePoint) -> list[str]:
    at = point.created_at.isoformat(timespec="seconds")
    cells = [point.id[:12], point.model, at, point.kind.replace("_", " "), point.champion]
    return [text(cell) for cell in (*cells, _restorable(point), point.created_by, point.reason)]


def _restorable(point: RestorePoint) -> str:
    if not point.is_intact:
        return "no: damaged"
    if point.verdict is restore_points.Verdict.UNUSABLE:
        return f"no: {point.verdict_reason}"
    return "yes" if point.verdict is restore_points.Verdict.RESTORABLE else "not checked yet"


def _difference_cells(each: Difference) -> list[str]:
    return [each.path, text(each.then), text(each.now)]
