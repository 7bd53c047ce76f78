"""The measuring process: `python -m flows.catalog.measure <task.json> <facts.json>`, one validation each.

Loads the candidate, and the champion beside it, in a clean process that may hang or crash without
harm. What was found so far is on disk before each step, so whoever waits can tell what it died of.
"""

import faulthandler
import os
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from flows.catalog.evaluation import EvaluationRefused, EvaluationSet, misfit, read_evaluation
from flows.catalog.facts import Answer, Facts, Latency, Loaded, Score, Side, Source, Step
from flows.catalog.figures import is_slower
from flows.catalog.policy import ValidationPolicy
from flows.catalog.scoring import Evaluated, evaluate, fitted
from flows.catalog.subject import Subject, bring_in
from flows.catalog.trials import batch_invariance, determinism, recorded_inputs, time_calls, try_out
from serving.core.datatypes import Array
from serving.formats.selftest import self_test

# Below the serving process on the same machine, so that looking at a version slows no caller.
_NICENESS = 5
_GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure: folders on this machine. A `*_problem` says why a part of it is not there."""

    version: str
    root: Path
    threads: int
    deadline_seconds: float
    policy: ValidationPolicy
    digest: str | None = None
    model_type: str | None = None
    champion_version: str | None = None
    champion_root: Path | None = None
    champion_problem: str | None = None
    evaluation: Path | None = None
    evaluation_problem: str | None = None


TASKS = TypeAdapter(Task)
FACTS = TypeAdapter(Facts)


class Notebook:
    """The facts so far; written whole before every step and at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.facts = Facts()

    def begin(self, side: Side, doing: str) -> None:
        step = Step(side, doing)
        if step != self.facts.step:
            self.facts = replace(self.facts, step=step)
            self.write()

    def write(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_bytes(FACTS.dump_json(self.facts))
        temporary.replace(self._path)


def measure(task: Task, notebook: Notebook) -> None:
    """Fill the notebook; ends early where the candidate cannot be loaded."""
    notebook.begin(Side.CANDIDATE, "loading")
    candidate = bring_in(Side.CANDIDATE, task.root, task.version, task.threads, task.digest)
    if isinstance(candidate, Loaded):
        notebook.facts = replace(notebook.facts, candidate=candidate)
        return
    notebook.facts = replace(notebook.facts, candidate=candidate.loaded)
    notebook.begin(Side.CANDIDATE, "answering its self-test")
    notebook.facts = replace(notebook.facts, self_test=self_test(candidate.model, candidate.artifact))
    champion = _champion(task, notebook)
    inputs = recorded_inputs(candidate, champion)
    for source, recorded in inputs.items():
        trial = try_out(source, recorded, candidate, champion, notebook.begin)
        notebook.facts = replace(notebook.facts, trials=(*notebook.facts.trials, trial))
    inputs |= _evaluation(task, candidate, champion, notebook)
    _closer_look(task, inputs, candidate, champion, notebook)


def main() -> None:
    task_path, facts_path = map(Path, sys.argv[1:3])
    task = TASKS.validate_json(task_path.read_bytes())
    faulthandler.enable()
    # Should whoever waits have died, a model that hangs must not stay for ever.
    faulthandler.dump_traceback_later(task.deadline_seconds + _GRACE_SECONDS, exit=True)
    os.nice(_NICENESS)
    notebook = Notebook(facts_path)
    measure(task, notebook)
    notebook.facts = replace(notebook.facts, step=None, peak_bytes=_peak_bytes())
    notebook.write()
    # Past the interpreter's end: a runtime that crashes while it is torn down changes no finding.
    os._exit(0)


def _champion(task: Task, notebook: Notebook) -> Subject | None:
    if task.champion_version is None:
        return None
    found: Subject | Loaded = Loaded(task.champion_version, problem=task.champion_problem)
    if task.champion_root is not None:
        notebook.begin(Side.CHAMPION, "loading")
        root, version = task.champion_root, task.champion_version
        found = bring_in(Side.CHAMPION, root, version, task.threads, digest=None)
    loaded = found if isinstance(found, Loaded) else found.loaded
    notebook.facts = replace(notebook.facts, champion=loaded)
    return found if isinstance(found, Subject) else None


def _evaluation(
    task: Task, candidate: Subject, champion: Subject | None, notebook: Notebook
) -> dict[Source, dict[str, Array]]:
    """Score both sides; the first rows of the set, as inputs for the checks that follow."""
    if task.evaluation is None:
        if task.evaluation_problem is not None:
            notebook.facts = replace(notebook.facts, score=Score(problem=task.evaluation_problem))
        return {}
    try:
        evaluation = read_evaluation(task.evaluation)
        problem = misfit(evaluation, candidate.model.inputs)
    except EvaluationRefused as refused:
        problem = str(refused)
    if problem is not None:
        notebook.facts = replace(notebook.facts, score=Score(problem=problem))
        return {}
    found = _evaluated(task, evaluation, candidate, champion, notebook)
    trials = (found.trial, *notebook.facts.trials)
    notebook.facts = replace(notebook.facts, trials=trials, score=found.score)
    return {Source.EVALUATION: _first_rows(evaluation, candidate)}


def _evaluated(
    task: Task, evaluation: EvaluationSet, candidate: Subject, champion: Subject | None, notebook: Notebook
) -> Evaluated:
    return evaluate(
        evaluation,
        candidate,
        champion,
        model_type=task.model_type,
        budget_seconds=task.policy.evaluation_seconds,
        begin=notebook.begin,
    )


def _first_rows(evaluation: EvaluationSet, candidate: Subject, rows: int = 8) -> dict[str, Array]:
    specs = candidate.model.inputs
    lengths = {spec.name: spec.dims[0] if spec.dims and spec.dims[0] > 0 else rows for spec in specs}
    return fitted({name: evaluation.inputs[name][:length] for name, length in lengths.items()}, specs)


def _closer_look(
    task: Task,
    inputs: Mapping[Source, Mapping[str, Array]],
    candidate: Subject,
    champion: Subject | None,
    notebook: Notebook,
) -> None:
    """Batches, repetition and time, on the best inputs that the candidate answers at all."""
    trials = {trial.source: trial for trial in notebook.facts.trials}
    answered = [source for source in Source if source in inputs and trials[source].candidate.error is None]
    if not answered:
        return
    source = next((source for source in answered if _answers(trials[source].champion)), answered[0])
    rival = champion if _answers(trials[source].champion) else None
    batch = batch_invariance(source, inputs[source], candidate, rival, notebook.begin)
    notebook.facts = replace(notebook.facts, batch=batch)
    repeat = determinism(source, inputs[source], candidate, rival, notebook.begin)
    notebook.facts = replace(notebook.facts, repeat=repeat)
    notebook.begin(Side.CANDIDATE, f"answering the {source} many times")
    notebook.facts = replace(
        notebook.facts, latency=_timed(source, inputs[source], candidate, rival, task.policy)
    )


def _answers(answer: Answer | None) -> bool:
    return answer is not None and answer.error is None


def _timed(
    source: Source,
    inputs: Mapping[str, Array],
    candidate: Subject,
    champion: Subject | None,
    policy: ValidationPolicy,
) -> Latency | None:
    """The faster of two rounds where the first looks slow: a busy machine is not the version's fault."""
    latency = None
    for _round in range(2):
        found = time_calls(
            source,
            inputs,
            candidate,
            champion,
            calls=policy.latency_calls,
            budget_seconds=policy.latency_seconds,
        )
        if found is None:
            return latency
        if latency is None or found.candidate.p95_ms < latency.candidate.p95_ms:
            latency = found
        if not is_slower(latency, policy):
            break
    return latency


def _peak_bytes() -> int:
    """Largest resident size so far; Linux counts in kilobytes, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
