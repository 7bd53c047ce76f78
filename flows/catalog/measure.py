"""The measuring process: `python -m flows.catalog.measure <task.json> <facts.json>`, one validation each.

Loads the candidate, and the champion beside it, in a clean process that may hang or crash without
harm. What was found so far is on disk before each step, so whoever waits can tell what it died of.
"""

import contextlib
import faulthandler
import os
import resource
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flows.catalog.evaluation import EvaluationRefused, EvaluationSet, misfit, read_evaluation
from flows.catalog.facts import Answer, Facts, Latency, Loaded, Replay, Score, Side, Source
from flows.catalog.figures import is_slower
from flows.catalog.odd import ask_odd, odd_inputs
from flows.catalog.parity import beside
from flows.catalog.policy import ValidationPolicy
from flows.catalog.replay import logged_inputs, replay
from flows.catalog.scoring import Effort, Evaluated, evaluate, fitted
from flows.catalog.subject import Subject, bring_in, resident_bytes
from flows.catalog.task import TASKS, Notebook, Task
from flows.catalog.trials import ROWS, batch_invariance, determinism, recorded_inputs, time_calls, try_out
from serving.core.datatypes import Array
from serving.formats.selftest import self_test

# Below the serving process on the same machine, so that looking at a version slows no caller.
_NICENESS = 5
_GRACE_SECONDS = 10.0
# What is optional is left out rather than interrupted.
_SPARE_SECONDS = 5.0
_LARGEST_BATCH_MS = 3000.0
_SLOW_SECONDS = 0.5

Inputs = Mapping[Source, Mapping[str, Array]]


def measure(task: Task, notebook: Notebook) -> None:
    """Fill the notebook; ends early where the candidate cannot be loaded."""
    candidate = _candidate(task, notebook)
    if candidate is None:
        return
    champion = _champion(task, notebook)
    inputs = recorded_inputs(candidate, champion)
    for source, recorded in inputs.items():
        trial = try_out(source, recorded, candidate, champion, notebook.begin)
        _note(notebook, trials=(*notebook.facts.trials, trial))
    inputs |= _evaluation(task, candidate, champion, notebook)
    answered = {source: inputs[source] for source in _answered(notebook.facts) if source in inputs}
    _closer_look(task, answered, candidate, champion, notebook)
    _beyond(task, answered, candidate, champion, notebook)
    _note(notebook, peak_bytes=_peak_bytes())
    _odd(task, answered, candidate, champion, notebook)


def main() -> None:
    task_path, facts_path = map(Path, sys.argv[1:3])
    task = TASKS.validate_json(task_path.read_bytes())
    faulthandler.enable()
    # Should whoever waits have died, a model that hangs must not stay for ever.
    faulthandler.dump_traceback_later(task.deadline_seconds + _GRACE_SECONDS, exit=True)
    os.nice(_NICENESS)
    _be_first_to_go()
    notebook = Notebook(facts_path, task.deadline_seconds)
    measure(task, notebook)
    _note(notebook, step=None)
    notebook.write()
    # Past the interpreter's end: a runtime that crashes while it is torn down changes no finding.
    os._exit(0)


def _be_first_to_go() -> None:
    """Where memory runs out for the whole machine, Linux ends this process and not the serving one."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _note(notebook: Notebook, **found: object) -> None:
    notebook.facts = replace(notebook.facts, **found)  # type: ignore[arg-type]


def _candidate(task: Task, notebook: Notebook) -> Subject | None:
    notebook.begin(Side.CANDIDATE, "loading")
    found = bring_in(Side.CANDIDATE, task.root, task.version, task.threads, task.digest)
    if isinstance(found, Loaded):
        _note(notebook, candidate=found)
        return None
    _note(notebook, candidate=found.loaded)
    before_bytes = resident_bytes() - found.loaded.grown_bytes
    notebook.begin(Side.CANDIDATE, "answering its self-test")
    tested = self_test(found.model, found.artifact)
    peak_bytes = max(found.loaded.grown_bytes, _peak_bytes() - before_bytes)
    _note(notebook, self_test=tested, candidate=replace(found.loaded, peak_bytes=peak_bytes))
    return found


def _champion(task: Task, notebook: Notebook) -> Subject | None:
    if task.champion_version is None:
        return None
    found: Subject | Loaded = Loaded(task.champion_version, problem=task.champion_problem)
    if task.champion_root is not None:
        notebook.begin(Side.CHAMPION, "loading")
        root, version = task.champion_root, task.champion_version
        found = bring_in(Side.CHAMPION, root, version, task.threads, digest=None)
    _note(notebook, champion=found if isinstance(found, Loaded) else found.loaded)
    return found if isinstance(found, Subject) else None


def _evaluation(
    task: Task, candidate: Subject, champion: Subject | None, notebook: Notebook
) -> dict[Source, dict[str, Array]]:
    """Score both sides; the first rows of the set, as inputs for the checks that follow."""
    if task.evaluation is None:
        if task.evaluation_problem is not None:
            _note(notebook, score=Score(problem=task.evaluation_problem))
        return {}
    try:
        evaluation = read_evaluation(task.evaluation)
        problem = misfit(evaluation, candidate.model.inputs)
    except EvaluationRefused as refused:
        problem = str(refused)
    if problem is not None:
        _note(notebook, score=Score(problem=problem))
        return {}
    found = _evaluated(task, evaluation, candidate, champion, notebook)
    trials = (found.trial, *notebook.facts.trials)
    _note(notebook, trials=trials, score=found.score, similarity=found.similarity)
    return {Source.EVALUATION: _first_rows(evaluation, candidate)}


def _evaluated(
    task: Task, evaluation: EvaluationSet, candidate: Subject, champion: Subject | None, notebook: Notebook
) -> Evaluated:
    effort = Effort(task.model_type, task.policy.confidence, task.policy.evaluation_seconds)
    return evaluate(evaluation, candidate, champion, effort, notebook.begin)


def _first_rows(evaluation: EvaluationSet, candidate: Subject, rows: int = 8) -> dict[str, Array]:
    specs = candidate.model.inputs
    lengths = {spec.name: spec.dims[0] if spec.dims and spec.dims[0] > 0 else rows for spec in specs}
    return fitted({name: evaluation.inputs[name][:length] for name, length in lengths.items()}, specs)


def _answered(facts: Facts) -> list[Source]:
    """Inputs that the candidate answered, those first that the champion answered too."""
    found = {trial.source: trial for trial in facts.trials if trial.candidate.error is None}
    ordered = [source for source in Source if source in found]
    return sorted(ordered, key=lambda source: not _answers(found[source].champion))


def _answers(answer: Answer | None) -> bool:
    return answer is not None and answer.error is None


def _closer_look(
    task: Task, answered: Inputs, candidate: Subject, champion: Subject | None, notebook: Notebook
) -> None:
    """Batches, repetition and time, on the best inputs that were answered."""
    if not answered:
        return
    source, inputs = next(iter(answered.items()))
    trial = next(trial for trial in notebook.facts.trials if trial.source is source)
    rival = champion if _answers(trial.champion) else None
    rows = _rows_in_time(notebook.facts)
    _note(notebook, batch=batch_invariance(source, inputs, candidate, rival, notebook.begin, rows))
    _note(notebook, repeat=determinism(source, inputs, candidate, rival, notebook.begin, rows))
    notebook.begin(Side.CANDIDATE, f"answering the {source} many times")
    _note(notebook, latency=_timed(source, inputs, candidate, rival, task.policy))


def _rows_in_time(facts: Facts) -> int:
    """Fewer rows of a model that is slow: each of them is asked several times."""
    is_slow = facts.self_test is not None and facts.self_test.seconds > _SLOW_SECONDS
    return 2 if is_slow else ROWS


def _beyond(
    task: Task, answered: Inputs, candidate: Subject, champion: Subject | None, notebook: Notebook
) -> None:
    """Siblings and recent inputs, where there are any."""
    for kin in task.kin:
        if not answered or notebook.left_seconds < _SPARE_SECONDS:
            unasked = "there was no input to compare them on" if not answered else "there was no time left"
            kin = replace(kin, root=None, problem=kin.problem or unasked)
        found = beside(kin, candidate, answered, task.threads, notebook.begin)
        _note(notebook, kin=(*notebook.facts.kin, found))
    if task.logged is None and task.logged_problem is None:
        return
    _note(notebook, replay=_replayed(task, candidate, champion, notebook))


def _replayed(task: Task, candidate: Subject, champion: Subject | None, notebook: Notebook) -> Replay:
    if task.logged is None:
        return Replay(problem=task.logged_problem)
    logged = logged_inputs(task.logged, candidate.model.inputs, is_batched=candidate.is_batched)
    if isinstance(logged, str):
        return Replay(problem=logged)
    return replay(
        logged,
        candidate,
        champion,
        model_type=task.model_type,
        budget_seconds=min(task.policy.replay_seconds, max(0.0, notebook.left_seconds - _SPARE_SECONDS)),
        begin=notebook.begin,
    )


def _odd(
    task: Task, answered: Inputs, candidate: Subject, champion: Subject | None, notebook: Notebook
) -> None:
    """Last, because a model may die of it: all else is on disk by then."""
    if not answered or notebook.left_seconds < _SPARE_SECONDS:
        return
    inputs = next(iter(answered.values()))
    latency = notebook.facts.latency
    slowest_ms = 0.0 if latency is None else latency.candidate.p95_ms
    rows = max(1, min(task.policy.max_batch_rows, int(_LARGEST_BATCH_MS / max(slowest_ms, 0.01))))
    asked = odd_inputs(inputs, is_batched=candidate.is_batched, max_rows=rows)
    for trial in ask_odd(asked, candidate, champion, notebook.begin):
        _note(notebook, odd=(*notebook.facts.odd, trial))


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
