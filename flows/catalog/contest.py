"""Candidate and champion side by side: latency of single rows, then batches, then threads.

Called by `flows.catalog.load_test` with both loaded and warm. A champion that raises leaves the
contest with its reason; the candidate is measured on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from flows.catalog.accelerator import gpu_use, installed_nvml
from flows.catalog.facts import Side
from flows.catalog.limits import BenchmarkPolicy
from flows.catalog.logbook import Logbook
from flows.catalog.performance import Performance, Statistic
from flows.catalog.race import Faltered, Heat, Pace, race
from flows.catalog.sampling import estimate, latency_of, ratio
from flows.catalog.subject import Subject
from flows.catalog.sweep import (
    batch_of,
    batch_point,
    batch_points,
    entrant,
    points_as_loaded,
    thread_counts,
    thread_points,
)
from serving.core.cpus import cpu_count
from serving.core.datatypes import Array

# Of the time for calls.
_LATENCY_SHARE = 0.5
_BATCHES_SHARE = 0.25
_THREADS_SHARE = 0.25
# Of what is left until the deadline, for one race of slow models.
_LATENCY_MOST = 0.5
_SWEEP_MOST = 0.25


@dataclass(frozen=True, slots=True)
class Field:
    """What the sides compete on. `threads` is what their sessions were loaded with."""

    policy: BenchmarkPolicy
    threads: int
    inputs: Mapping[str, Array]
    sizes: Sequence[int]
    logbook: Logbook


def compete(field: Field, candidate: Subject, champion: Subject | None) -> None:
    """Note everything of both. Raises `Faltered` of the candidate."""
    for step in (_latency, _batches, _threads):
        subjects = [candidate] if champion is None else [candidate, champion]
        try:
            step(field, subjects)
        except Faltered as faltered:
            if faltered.side is Side.CANDIDATE:
                raise
            champion, known = None, field.logbook.of(Side.CHAMPION)
            field.logbook.note(Side.CHAMPION, replace(known, problem=faltered.problem))
            step(field, [candidate])


def _latency(field: Field, subjects: Sequence[Subject]) -> None:
    logbook, policy = field.logbook, field.policy
    logbook.begin(Side.CANDIDATE, "answering single rows many times")
    pace = Pace(
        seconds=policy.seconds * _LATENCY_SHARE,
        most_seconds=logbook.left_seconds * _LATENCY_MOST,
        window_seconds=policy.window_seconds,
        stability_ratio=policy.stability_ratio,
    )
    heat = race([entrant(each, batch_of(each, field.inputs, 1)) for each in subjects], pace)
    rng = np.random.default_rng(0)
    for subject in subjects:
        logbook.note(subject.side, _timed(logbook.of(subject.side), heat, subject.side, rng))
    gpu = gpu_use(installed_nvml())
    logbook.findings = replace(logbook.findings, is_stable=heat.is_stable, gpu=gpu)
    if len(subjects) > 1:
        ours, theirs = heat.blocks(Side.CANDIDATE), heat.blocks(Side.CHAMPION)
        ratios = {statistic: ratio(ours, theirs, statistic, rng) for statistic in Statistic}
        logbook.findings = replace(logbook.findings, ratios=ratios)


def _timed(known: Performance, heat: Heat, side: Side, rng: np.random.Generator) -> Performance:
    blocks = heat.blocks(side)
    return replace(
        known,
        latency_ms=latency_of(blocks),
        p95=estimate(blocks, Statistic.P95, rng),
        unhindered_p95_ms=latency_of(heat.unhindered(side)).p95,
        calls=sum(len(block) for block in blocks),
        cpu_ratio=heat.lanes[side].cpu_ratio,
        batches=(batch_point(1, heat.lanes[side]),),
    )


def _batches(field: Field, subjects: Sequence[Subject]) -> None:
    """Throughput at each further size, of those that take rows together; one row was timed before."""
    logbook = field.logbook
    several = [subject for subject in subjects if subject.is_batched]
    seconds = field.policy.seconds * _BATCHES_SHARE / len(field.sizes)
    known = {point.rows for point in logbook.of(Side.CANDIDATE).batches}
    for rows in (rows for rows in field.sizes if rows not in known):
        logbook.begin(Side.CANDIDATE, f"answering {rows} rows at once many times")
        points = batch_points(several, field.inputs, rows, seconds, logbook.left_seconds * _SWEEP_MOST)
        for side, point in points.items():
            before = logbook.of(side)
            logbook.note(side, replace(before, batches=(*before.batches, point)))


def _threads(field: Field, subjects: Sequence[Subject]) -> None:
    """The sessions there are come first: TorchScript's number of threads is the process's, not theirs."""
    logbook, present = field.logbook, field.threads
    known = {point.threads for point in logbook.of(Side.CANDIDATE).threads}
    counts = sorted(set(thread_counts(cpu_count())) - known, key=lambda count: (count != present, count))
    seconds = field.policy.seconds * _THREADS_SHARE / max(1, len(counts))
    rows = field.sizes[-1] if all(subject.is_batched for subject in subjects) else 1
    for count in counts:
        is_loaded = count == present
        needed_seconds = seconds + (0.0 if is_loaded else sum(each.loaded.seconds for each in subjects))
        if needed_seconds > logbook.left_seconds / 2:
            return
        logbook.begin(Side.CANDIDATE, f"answering with {count} threads")
        measured = points_as_loaded if is_loaded else thread_points
        points = measured(subjects, field.inputs, rows, count, seconds, logbook.left_seconds * _SWEEP_MOST)
        for side, point in points.items():
            before = logbook.of(side)
            threads = sorted((*before.threads, point), key=lambda each: each.threads)
            logbook.note(side, replace(before, threads=tuple(threads)))
