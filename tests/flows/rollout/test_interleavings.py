"""A rollout on a real store under any interleaving of hands, crashes, runs, commands and rollbacks.

The reference is what a reader of the rules expects: a champion changes by a hand, by serving's rollback, or
once by a rollout that passed every stage; nobody's choice is overwritten; what is over stays over.
"""

import shutil
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import httpx
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as bounds
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from hypothesis.strategies import booleans, integers, sampled_from
from sqlalchemy import select

from flows.rollout.outcome import Outcome
from flows.rollout.promotion import owns, record, tidy
from serving.core.clock import ManualClock
from serving.core.errors import ChangeRefused, SignalboxError
from serving.core.model import Alias, Tag
from serving.core.traffic import Split, goes_to_challenger, read_tag, write_tag
from serving.store import audit, changes, overrides, rollouts, schema
from serving.store.database import open_engine, reading
from serving.store.guard import Wish
from serving.store.leases import Lease
from serving.store.rollouts import Command, Phase, Rollout, State
from tests.flows.rollout.line import MODEL, WORKER, Line, registry_of
from tests.flows.rollout.registrar import Registrar
from tests.flows.rollout.reins import Run, answering
from tests.flows.rollout.witness import Says, Witness, erroneous, healthy
from tests.mlflow_double import Fault

PERCENTS = (50, 100)
VERSIONS = ("1", "2", "3", "4")
KEYS = [f"user-{number}" for number in range(100)]
WRITTEN = (Alias.CHAMPION, Alias.CHALLENGER, Tag.TRAFFIC)
EXAMPLES, STEPS = 20, 40
_RUNS = 4


def silent(span: Any, requests: int) -> Any:
    return replace(healthy(span, 0), is_final=span.is_final)


@dataclass
class Reference:
    """What must be so. `promoted` are the rollouts that moved the alias, each with where it came from."""

    champion: str | None = "1"
    challenger_by_hand: str | None = None
    promoted: dict[str, str | None] = field(default_factory=dict)
    ended: dict[str, tuple[State, str, Any]] = field(default_factory=dict)
    epoch: int = 0


class Interleavings(RuleBasedStateMachine):
    """Each rule is one thing that happens; what must be so is checked after each."""

    template: ClassVar[Path]
    taken: ClassVar[int] = 0
    ends: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.runs: list[Run] = []
        self.begun = 0

    @initialize()
    def begin(self) -> None:
        home = Path(self.stack.enter_context(TemporaryDirectory()))
        shutil.copy(self.template, home / "signalbox.db")
        engine = open_engine(f"sqlite:///{home / 'signalbox.db'}")
        self.stack.callback(engine.dispose)
        self.registrar = Registrar()
        self.stack.callback(self.registrar._server.server_close)
        self.registrar.add(MODEL, home, home, home, home)
        self.registrar.point(MODEL, "1")
        transport = answering(self.registrar, self._before_write)
        client = self.stack.enter_context(httpx.Client(base_url="http://mlflow", transport=transport))
        self.line = Line(engine, registry_of(client), ManualClock(), evidence=Witness())
        self.line.beat()
        self.reference = Reference()

    def teardown(self) -> None:
        try:
            if hasattr(self, "line"):
                self._drain()
        finally:
            for run in self.runs:
                run.kill()
            self.stack.close()

    # What happens

    @rule(version=sampled_from(["2", "3"]), is_direct=booleans())
    def ask(self, version: str, is_direct: bool) -> None:
        self._count()
        plan: dict[str, Any] = {"stages": list(PERCENTS), "stage_seconds": 4, "stage_deadline_seconds": 30}
        asked = replace(
            self.line.ask(version),
            strategy="direct" if is_direct else "staged",
            policy={} if is_direct else plan,
        )
        present = rollouts.open_rollouts(self.line.engine)
        self.line.clock.wall += timedelta(seconds=1)
        try:
            entry = record(self.line.engine, self.line.registry, asked, self.line.clock)
        except SignalboxError:  # the registry is away
            return
        if isinstance(entry, Outcome):
            assert present, entry
        elif present:
            assert (entry.created, entry.rollout.id) == (False, present[0].id)

    @rule()
    def start_a_run(self) -> None:
        """As an event, tend or a person does, whoever works on it already."""
        rollout = self._open()
        if rollout is None or len(self._alive()) == _RUNS:
            return
        self._count()
        self.begun += 1
        run = Run(self.line, rollout, f"run-{self.begun}")
        self.runs.append(run)
        self._let_go(run, 1.0)

    @rule(version=sampled_from(["2", "3"]), looks=integers(5, 40))
    def promote(self, version: str, looks: int) -> None:
        """Asked for and worked on at once, to its end or a good way towards it."""
        self.ask(version, False)
        self.start_a_run()
        self.go_on(_RUNS - 1, looks, 2.0)

    @rule(which=integers(0, _RUNS - 1), looks=integers(1, 12), seconds=sampled_from([1.0, 3.0, 9.0, 45.0]))
    def go_on(self, which: int, looks: int, seconds: float) -> None:
        """A run works for some looks, also one that had stood still so long that it was taken for dead."""
        if (run := self._chosen(which)) is None:
            return
        self._count()
        for _ in range(looks):
            if run.is_over:
                return
            self._let_go(run, seconds)

    @rule(which=integers(0, _RUNS - 1), name=sampled_from(WRITTEN))
    def stop_before_a_write(self, which: int, name: str) -> None:
        """A run stands still right before a write that it was still allowed to make."""
        if (run := self._chosen(which)) is None:
            return
        self._count()
        run.stops_at = name
        for _ in range(40):
            if run.is_over or run.is_at_write:
                break
            self._let_go(run, 2.0)
        run.stops_at = None

    @rule(version=sampled_from(["2", "3"]), to=sampled_from([None, *VERSIONS]))
    def come_between(self, version: str, to: str | None) -> None:
        """A hand moves the champion while a run is about to do so."""
        self.ask(version, False)
        self.start_a_run()
        self.stop_before_a_write(_RUNS - 1, Alias.CHAMPION)
        if self._parked():
            self.set_champion(to)
            self.go_on(_RUNS - 1, 1, 1.0)

    @rule(which=integers(0, _RUNS - 1), is_gentle=booleans())
    def crash(self, which: int, is_gentle: bool) -> None:
        """For good: gently it frees its lease, else others have to wait until it is taken for dead."""
        if (run := self._chosen(which)) is None:
            return
        self._count()
        if is_gentle:
            run.kill()
        self.runs.remove(run)
        if not is_gentle:
            self.stack.callback(run.kill)

    @rule(to=sampled_from([None, *VERSIONS]))
    def set_challenger(self, to: str | None) -> None:
        if self._parked():
            return
        self._count()
        self.registrar.point(MODEL, to, Alias.CHALLENGER)
        self.reference.challenger_by_hand = to

    @rule(to=sampled_from([None, *VERSIONS]))
    def set_champion(self, to: str | None) -> None:
        """Seen and recorded by serving, as any move by hand is."""
        self._count()
        if to == self.reference.champion:
            return
        before, self.reference.champion = self.reference.champion, to
        self.registrar.point(MODEL, to)
        latest = changes.latest(self.line.engine, MODEL, Alias.CHAMPION)
        follows_id = latest.id if latest else 0
        changes.record_out_of_band(self.line.engine, MODEL, Alias.CHAMPION, before, to, follows_id, None)

    @rule(percent=sampled_from([0, 7, 50]))
    def change_percent(self, percent: int) -> None:
        challenger = self.registrar.named(MODEL, Alias.CHALLENGER)
        if challenger is None or self._parked():
            return
        self._count()
        split = Split(challenger, percent)
        self.registrar.models[MODEL].tags[Tag.TRAFFIC] = write_tag(split)

    @rule(command=sampled_from(list(Command)))
    def command(self, command: Command) -> None:
        rollout = self._open()
        if rollout is not None and rollout.spec is not None:
            self._count()
            # An approval counts only of what waits for one.
            may_refuse = suppress(ChangeRefused) if command is Command.APPROVE else nullcontext()
            with may_refuse:
                rollouts.ask(self.line.engine, rollout.id, command, "bob", self.line.clock.now())

    @rule()
    def roll_back(self) -> None:
        """Serving's own: override, lease, registry, in this order."""
        bad, line = str(self.reference.champion), self.line
        if self.registrar.fault is not None or bad not in ("2", "3"):
            return
        self._count()
        line.roll_back(from_version=bad, to="1")
        with line.guard.holding(MODEL, WORKER, preempt=True) as lease:
            line.guard.move(Wish(MODEL, Alias.CHAMPION, "1", WORKER, "it fails", frozenset({bad})), lease)
        overrides.end(line.engine, line.override(bad, "1"), "champion names 1", now=line.clock.now())
        self.reference.champion = "1"

    @rule(says=sampled_from([healthy, erroneous, silent]))
    def judge(self, says: Says) -> None:
        self._count()
        self.line.evidence = Witness(says)

    @rule(is_away=booleans())
    def lose_the_registry(self, is_away: bool) -> None:
        self._count()
        self.registrar.fault = Fault(500) if is_away else None

    # What must be so

    @invariant()
    def champion_is_whose_choice_it_was(self) -> None:
        if hasattr(self, "line"):
            assert self.registrar.named(MODEL) == self.reference.champion

    @invariant()
    def shares_are_whole(self) -> None:
        split = self._split() if hasattr(self, "line") else None
        if split is not None:
            challengers = [key for key in KEYS if goes_to_challenger(MODEL, key, split.percent)]
            others = [key for key in KEYS if not goes_to_challenger(MODEL, key, split.percent)]
            assert len(challengers) + len(others) == 100
            assert (len(challengers) == 0) >= (split.percent == 0)
            assert (len(others) == 0) >= (split.percent == 100)

    @invariant()
    def ends_are_written_once(self) -> None:
        if not hasattr(self, "line"):
            return
        found = rollouts.recent(self.line.engine, MODEL)
        assert sum(rollout.state is State.OPEN for rollout in found) <= 1
        for rollout in found:
            if rollout.state.is_terminal:
                end = (rollout.state, rollout.reason, rollout.finished_at)
                assert self.reference.ended.setdefault(rollout.id, end) == end
        assert self.reference.ended.keys() <= {rollout.id for rollout in found}

    @invariant()
    def epochs_only_rise(self) -> None:
        if not hasattr(self, "line"):
            return
        with reading(self.line.engine) as connection:
            epoch = connection.execute(select(schema.leases.c.epoch)).scalar() or 0
        assert epoch >= self.reference.epoch
        self.reference.epoch = epoch

    @invariant()
    def no_step_of_a_rollout_is_taken_twice(self) -> None:
        if not hasattr(self, "line"):
            return
        seen: set[tuple[Any, Any]] = set()
        once = {*map(str, Phase), *map(str, State)} - {State.OPEN}
        for row in audit.tail(self.line.engine, 500, action="promote"):
            step = (row.entry.details["rollout"], row.entry.details["step"])
            assert step[1] not in once or step not in seen, step
            seen.add(step)

    # How

    def _count(self) -> None:
        type(self).taken += 1

    def _open(self) -> Rollout | None:
        found = rollouts.open_rollouts(self.line.engine) if hasattr(self, "line") else []
        return found[0] if found else None

    def _alive(self) -> list[Run]:
        return [run for run in self.runs if not run.is_over]

    def _chosen(self, which: int) -> Run | None:
        """The last where there are not as many."""
        alive = self._alive()
        return alive[min(which, len(alive) - 1)] if alive else None

    def _parked(self) -> bool:
        return any(run.is_at_write for run in self.runs)

    def _before_write(self, name: str) -> None:
        for run in self.runs:
            run.before_write(name)

    def _split(self) -> Split | None:
        tag = read_tag(self.registrar.models[MODEL].tags.get(Tag.TRAFFIC))
        assert tag is None or isinstance(tag, Split)
        return tag

    def _let_go(self, run: Run, seconds: float) -> None:
        """One look of a run, and whether what it changed was its to change."""
        self.line.clock.advance(seconds)
        self.line.beat()
        before = self._aliases()
        run.go_on()
        after, id_ = self._aliases(), run.rollout.id
        rollout = rollouts.get(self.line.engine, id_)
        champion, challenger, tag = (was != now for was, now in zip(before, after, strict=True))
        if champion:
            self._assert_promoted(rollout, before[0], after[0])
        if challenger:
            assert {before[1], after[1]} == {None, rollout.version}, (before, after)
        if tag and after[2] is not None:
            split = read_tag(after[2])
            assert isinstance(split, Split)
            assert (split.challenger, split.rollout) == (rollout.version, rollout.id)
            assert split.percent in PERCENTS

    def _aliases(self) -> tuple[str | None, str | None, str | None]:
        model = self.registrar.models[MODEL]
        champion, challenger = model.aliases.get(Alias.CHAMPION), model.aliases.get(Alias.CHALLENGER)
        return champion, challenger, model.tags.get(Tag.TRAFFIC)

    def _assert_promoted(self, rollout: Rollout, before: str | None, after: str | None) -> None:
        """Once, from what its restore point names, after every stage; or back from there."""
        point = (rollout.restore_point or {})["champion"]
        if rollout.id in self.reference.promoted:
            assert (before, after) == (rollout.version, self.reference.promoted[rollout.id])
        else:
            assert (before, after) == (point, rollout.version)
            if rollout.spec is not None and point is not None:
                passed = [stage["percent"] for stage in (rollout.status or {})["passed"]]
                assert passed == list(PERCENTS)
            self.reference.promoted[rollout.id] = point
        self.reference.champion = after

    def _drain(self) -> None:
        """Everything is well again: one more run brings what is open to its end, and tend tidies."""
        self.registrar.fault, self.line.evidence = None, Witness(healthy)
        for run in self._alive():
            run.kill()
        if (rollout := self._open()) is not None:
            if rollout.spec is not None:
                rollouts.ask(self.line.engine, rollout.id, Command.ABORT, "bob", self.line.clock.now())
            self.begun += 1
            last = Run(self.line, rollout, "last")
            self.runs.append(last)
            for _ in range(200):
                if last.is_over:
                    break
                self._let_go(last, 1.0)
            assert self._open() is None, last.outcome
        self._tidied()
        self.champion_is_whose_choice_it_was()
        self.ends_are_written_once()
        self.no_step_of_a_rollout_is_taken_twice()
        self.line.assert_intact()
        for rollout in rollouts.recent(self.line.engine, MODEL):
            type(self).ends[rollout.state] = type(self).ends.get(rollout.state, 0) + 1

    def _tidied(self) -> None:
        """Nothing of a rollout that is over is left in the registry but what a hand put there."""
        for number, rollout in enumerate(rollouts.recent(self.line.engine, MODEL)):
            # The last one, and as tend does whatever earlier one left its tag or its alias behind.
            if number == 0 or self._left_something(rollout):
                lease = self.line.leases.preempt(f"model:{MODEL}", "tend")
                held = partial(_same, lease)
                assert tidy(rollout, self.line.registry, self.line.guard, held) == ()
                self.line.leases.release(lease)
        split, challenger = self._split(), self.registrar.named(MODEL, Alias.CHALLENGER)
        owners = {rollout.id for rollout in rollouts.recent(self.line.engine, MODEL)}
        assert split is None or split.rollout not in owners
        assert challenger in (None, self.reference.challenger_by_hand)

    def _left_something(self, rollout: Rollout) -> bool:
        named = self.registrar.named(MODEL, Alias.CHALLENGER)
        is_ours = named == rollout.version != self.reference.challenger_by_hand
        return is_ours or owns(rollout, self.registrar.models[MODEL].tags.get(Tag.TRAFFIC))


def _same(lease: Lease) -> Lease:
    return lease


def test_rollouts_keep_their_promises_under_any_interleaving(
    store_template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hands, commands, crashes, several runs of one rollout, rollbacks and outages in any order."""
    Interleavings.template, Interleavings.taken, Interleavings.ends = store_template, 0, {}
    limits = bounds(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_machine(Interleavings, settings=limits)
    ends = ", ".join(f"{count} {state}" for state, count in sorted(Interleavings.ends.items()))
    with capsys.disabled():
        print(f"\n{Interleavings.taken} steps of rollouts under any interleaving; ends: {ends}")
