"""The measuring process: `python -m flows.catalog.load_test <task.json> <findings.json>`, one benchmark each.

First the candidate alone, for what it costs; then candidate and champion in turn, for how they compare.
What was found so far is on disk before each step, so whoever waits can tell what it died of.
"""

import faulthandler
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flows.catalog.contest import Field, compete
from flows.catalog.evaluation import EvaluationRefused, misfit, read_evaluation
from flows.catalog.facts import Loaded, Side, Source
from flows.catalog.logbook import TASKS, Logbook, Task
from flows.catalog.performance import Performance
from flows.catalog.race import Faltered
from flows.catalog.scoring import fitted
from flows.catalog.solo import cost
from flows.catalog.subject import Subject, bring_in
from flows.catalog.sweep import batch_of
from flows.catalog.trials import recorded_inputs
from serving.core.datatypes import Array
from serving.core.errors import ArtifactRefused
from serving.formats.artifact import inspect_artifact
from serving.formats.probe import named_example

# Below the serving process on the same machine, so that looking at a version slows no caller.
_NICENESS = 5
_GRACE_SECONDS = 10.0
_WARM_UP_SHARE = 0.05
_EVALUATION_ROWS = 32
# Recorded inputs before made ones; a version's own before another's.
_PREFERRED = (Source.GOLDEN, Source.EXAMPLE, Source.EVALUATION, Source.CHAMPION, Source.ZEROS)


def measure(task: Task, logbook: Logbook) -> None:
    """Fill the logbook; ends early where the candidate cannot be loaded or asked."""
    candidate = _brought_in(Side.CANDIDATE, task.root, task.version, task, logbook)
    if candidate is None:
        return
    chosen = _inputs(task, candidate)
    if chosen is None:
        problem = "no inputs are recorded and none can be made, as a shape is unknown"
        logbook.note(Side.CANDIDATE, replace(logbook.of(Side.CANDIDATE), problem=problem))
        return
    source, inputs = chosen
    logbook.findings = replace(logbook.findings, source=source)
    warm_up_seconds = task.policy.seconds * _WARM_UP_SHARE
    try:
        sizes = cost(candidate, inputs, task.policy.max_batch, warm_up_seconds, logbook)
        if not task.alone:
            field = Field(task.policy, task.threads, inputs, sizes, logbook)
            compete(field, candidate, _champion(task, inputs, logbook))
    except Faltered as faltered:
        problem = f"it {faltered.problem} on the {source}"
        logbook.note(Side.CANDIDATE, replace(logbook.of(Side.CANDIDATE), problem=problem))


def main() -> None:
    task_path, findings_path = map(Path, sys.argv[1:3])
    task = TASKS.validate_json(task_path.read_bytes())
    faulthandler.enable()
    # Should whoever waits have died, a model that hangs must not stay for ever.
    faulthandler.dump_traceback_later(task.deadline_seconds + _GRACE_SECONDS, exit=True)
    os.nice(_NICENESS)
    logbook = Logbook(findings_path, task.deadline_seconds)
    measure(task, logbook)
    logbook.findings = replace(logbook.findings, step=None)
    logbook.write()
    # Past the interpreter's end: a runtime that crashes while it is torn down changes no finding.
    os._exit(0)


def _brought_in(side: Side, root: Path, version: str, task: Task, logbook: Logbook) -> Subject | None:
    logbook.begin(side, "loading")
    found = bring_in(side, root, version, task.threads, task.digest if side is Side.CANDIDATE else None)
    loaded = found if isinstance(found, Loaded) else found.loaded
    seconds = loaded.seconds if loaded.problem is None else None
    logbook.note(side, Performance(version, loaded.problem, loaded.format, loaded.digest, seconds))
    return None if isinstance(found, Loaded) else found


def _inputs(task: Task, candidate: Subject) -> tuple[Source, Mapping[str, Array]] | None:
    found: dict[Source, Mapping[str, Array] | None] = {**recorded_inputs(candidate, None)}
    found[Source.EVALUATION] = _evaluation_rows(task, candidate)
    found[Source.CHAMPION] = _champions_example(task, candidate)
    return next(((source, rows) for source in _PREFERRED if (rows := found.get(source)) is not None), None)


def _evaluation_rows(task: Task, candidate: Subject) -> Mapping[str, Array] | None:
    if task.evaluation is None:
        return None
    specs = candidate.model.inputs
    try:
        evaluation = read_evaluation(task.evaluation)
    except EvaluationRefused:  # a finding of the validation; here others are asked instead
        return None
    if misfit(evaluation, specs) is not None:
        return None
    lengths = {spec.name: spec.dims[0] if spec.dims and spec.dims[0] > 0 else -1 for spec in specs}
    rows = {name: length if length > 0 else _EVALUATION_ROWS for name, length in lengths.items()}
    return fitted({name: evaluation.inputs[name][:length] for name, length in rows.items()}, specs)


def _champions_example(task: Task, candidate: Subject) -> Mapping[str, Array] | None:
    if task.champion_root is None:
        return None
    try:
        example = inspect_artifact(task.champion_root).example
    except ArtifactRefused:  # said when the champion is loaded
        return None
    return named_example(candidate.model.inputs, example)


def _champion(task: Task, inputs: Mapping[str, Array], logbook: Logbook) -> Subject | None:
    """The champion, once it answers the inputs; else None, with the reason noted."""
    if task.champion_version is None:
        return None
    if task.champion_root is None:
        logbook.note(Side.CHAMPION, Performance(task.champion_version, task.champion_problem))
        return None
    champion = _brought_in(Side.CHAMPION, task.champion_root, task.champion_version, task, logbook)
    if champion is None:
        return None
    logbook.begin(Side.CHAMPION, "answering its first calls")
    missing = [spec.name for spec in champion.model.inputs if spec.name not in inputs]
    problem = f"it takes input '{missing[0]}', which the candidate does not" if missing else None
    problem = problem or champion.ask(batch_of(champion, inputs, 1)).answer.error
    if problem is not None:
        logbook.note(Side.CHAMPION, replace(logbook.of(Side.CHAMPION), problem=problem))
        return None
    return champion


if __name__ == "__main__":
    main()
