"""`signalbox register`: one model file to a registered version; exit code 0 only if it is one then."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from flows.catalog.discover import PACKAGE, Candidate, data_files, fingerprint
from flows.catalog.outcome import Outcome, Result
from flows.catalog.register import Progress as Told
from flows.catalog.register import Request, actor, register
from flows.cli.console import AsJson, print_json, say
from flows.cli.errors import CommandFailed
from flows.registering import means_of
from flows.settings import FlowSettings
from flows.wiring import wired
from serving.store import model_files
from serving.store.database import check
from serving.store.model_files import ModelFile

Type = Annotated[str | None, typer.Option("--type", help="classifier, predictor, extractor or router.")]
Pairs = Annotated[list[str] | None, typer.Option("--metric", help="Training metric as NAME=NUMBER.")]
Params = Annotated[list[str] | None, typer.Option("--param", help="Training parameter as NAME=VALUE.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Tag of the version as NAME=VALUE.")]
Evaluation = Annotated[str | None, typer.Option(help="Evaluation set: an .npz file, or its MLflow address.")]
Example = Annotated[Path | None, typer.Option(help="Inputs to record its answers with: an .npz file.")]
Labels = Annotated[Path | None, typer.Option(help="Class labels: a file with one per line.")]


def register_file(
    path: Annotated[Path, typer.Argument(help="A .pt, .onnx, .pt2 or .mlmodel file, or an .mlpackage.")],
    name: Annotated[str, typer.Option("--name", help="The registered model to add a version to.")],
    model_type: Type = None,
    description: Annotated[str | None, typer.Option(help="What it is, for people.")] = None,
    author: Annotated[str | None, typer.Option(help="Who made it.")] = None,
    owner: Annotated[str | None, typer.Option(help="Who answers for the model.")] = None,
    team: Annotated[str | None, typer.Option(help="Whose model it is.")] = None,
    training_dataset: Annotated[str | None, typer.Option(help="What it was trained on.")] = None,
    licence: Annotated[str | None, typer.Option(help="Under which licence it is given.")] = None,
    sibling: Annotated[
        str | None, typer.Option(help="Name that every format of this network shares.")
    ] = None,
    metric: Pairs = None,
    param: Params = None,
    tag: Tags = None,
    evaluation_set: Evaluation = None,
    example: Example = None,
    labels: Labels = None,
    as_json: AsJson = False,
) -> None:
    """Check a model file and register it, with what its side file and the options say of it."""
    said = {
        "name": name,
        "model_type": model_type,
        "description": description,
        "author": author,
        "owner": owner,
        "team": team,
        "training_dataset": training_dataset,
        "licence": licence,
        "sibling": sibling,
        "metrics": _numbers(metric or []),
        "params": _pairs("--param", param or []),
        "tags": _pairs("--tag", tag or []),
        "evaluation_set": evaluation_set,
        "example": None if example is None else str(example),
        "labels": None if labels is None else str(labels),
    }
    outcome = _registered(path, {key: value for key, value in said.items() if value}, quiet=as_json)
    if as_json:
        print_json(outcome.as_json())
    elif outcome.is_success:
        say(outcome.sentence)
        for note in filter(None, outcome.notes):
            say(f"  {note}")
    if not outcome.is_success:
        _fail(outcome, quiet=as_json)


def _registered(path: Path, said: Mapping[str, Any], *, quiet: bool) -> Outcome:
    path = path.expanduser().absolute()
    if not path.is_file() and path.suffix != PACKAGE:
        raise CommandFailed(f"there is no model file {path}", next_step="check the path")
    with wired(FlowSettings()) as wiring:
        check(wiring.engine)
        with _progress(path.name, quiet=quiet) as told, means_of(wiring, actor(), tells=False) as means:
            candidate = Candidate(path, path.parent)
            noted = model_files.get(wiring.engine, str(path))
            file = noted or _unseen(candidate, wiring.clock.now())
            request = Request(candidate=candidate, file=file, said=said, is_afresh=True, progress=told)
            return register(request, means)


def _unseen(candidate: Candidate, now: datetime) -> ModelFile:
    members = data_files(candidate.path)
    stamp = fingerprint(candidate, members)
    return ModelFile(path=str(candidate.path), members=members, fingerprint=stamp, since=now)


def _fail(outcome: Outcome, *, quiet: bool) -> None:
    if quiet:
        raise typer.Exit(1)
    if outcome.result is Result.REFUSED:
        raise CommandFailed(outcome.sentence)
    raise CommandFailed(outcome.sentence, next_step="wait until it is complete, and register it again")


@contextmanager
def _progress(name: str, *, quiet: bool) -> Iterator[Told]:
    """A bar on the terminal's error stream; nothing where nobody looks."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda doing, share: None
        return
    columns = (TextColumn("{task.description:<12}"), BarColumn(), TextColumn(name), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda doing, share: bar.update(task, description=doing, completed=share)


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    wrong = next((text for text in texts if not text.partition("=")[0].strip() or "=" not in text), None)
    if wrong is not None:
        raise CommandFailed(f"{option} '{wrong}' is no NAME=VALUE")
    return {name.strip(): value.strip() for name, _, value in (text.partition("=") for text in texts)}


def _numbers(texts: Sequence[str]) -> dict[str, float]:
    found = {}
    for name, value in _pairs("--metric", texts).items():
        try:
            found[name] = float(value)
        except ValueError:
            raise CommandFailed(f"--metric '{name}={value}' is no NAME=NUMBER") from None
    return found
