"""`signalbox demo`: the order of the story, and that nothing of it is left behind.

Exit code 0 only when every act ended as it should, no request failed and none was answered by a
wrong version; requests that failed while the only server was dead are counted apart.
"""

import importlib.util
import os
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import httpx

from flows.cli.client import ServingClient
from flows.cli.console import say
from flows.cli.decision import Action
from flows.cli.demo import acts, drifting, messages, outages, promotions, report, trials
from flows.cli.demo.ground import cleared
from flows.cli.demo.live import RATE_PER_SECOND, flowing
from flows.cli.demo.playbill import Playbill
from flows.cli.demo.reference import References, half_faint, inverted, measure, real_scans, with_raising
from flows.cli.demo.runs import FlowRuns
from flows.cli.demo.settings import HOME_NAME, MODEL, forget_ambient, settings_for
from flows.cli.demo.slack_receiver import SlackReceiver, receiving
from flows.cli.demo.stage import Servers, Stage, set_alias
from flows.cli.demo.training import train
from flows.cli.demo.verdict import Tally, judge
from flows.cli.errors import CommandFailed
from flows.cli.home import Home
from flows.cli.interruption import go_undisturbed, interruptible
from flows.cli.launch import raise_stack
from flows.cli.probe import is_ready
from flows.cli.stack import stop
from flows.cli.waiting import wait_until
from flows.settings import FlowSettings
from serving.core.errors import SignalboxError
from serving.core.model import Alias
from serving.store import orchestrator, registry

_PACKAGES = ("aiohttp", "onnxscript", "sklearn", "tritonclient")
_FIRST_ANSWER_SECONDS = 60.0
_FEW_ANSWERS = 25
_INTERRUPTED = 130
_GOOD = ("1", "2")
# Of those that are tried out on faint scans.
_ANSWERING, _RAISING = ("5", "7"), ("6",)

_TRAFFIC = "live traffic from a tritonclient, from now on to the end"
_ACTS = (
    ("champion to version 2 and back, ten times, under live traffic", acts.swap_there_and_back),
    ("champion to version 3, which returns 9 classes and declares 10", acts.refuse_wrong_outputs),
    ("champion to version 4, which fails on real digits only", acts.roll_back_failing),
    ("alias challenger to version 2, while 1 is champion: 5, 25, 50, 100 %", promotions.promote_better),
    ("alias challenger to version 5, which is slow on faint scans", trials.roll_back_slow),
    ("alias challenger to version 6, which raises on faint scans", trials.eject_raising),
    ("alias challenger to version 7, which takes faint scans for blank paper", trials.roll_back_shifted),
    ("alias challenger to version 8, which is worse", promotions.refuse_worse),
    ("alias challenger to version 3, which is broken", promotions.refuse_broken),
    ("inverted digits as live traffic, then detect-drift through Prefect", drifting.detect_drift),
    ("deliver the notices to Slack, played by a receiver on this machine", messages.deliver),
    ("kill -9 of MLflow", outages.kill_mlflow),
    ("kill -9 of serving, the only server", outages.kill_serving),
    ("champion to version 1, after all that", outages.swap_once_more),
    ("verify the audit trail", acts.verify_audit),
)


def play(keep: bool) -> int:
    """The whole story; the exit code."""
    _check_packages()
    root = Path.cwd() / HOME_NAME
    try:
        with interruptible(), cleared(root), receiving() as slack:
            forget_ambient()
            # Nor may a `.env` of the user's be found, here or by what is started from here.
            os.chdir(root)
            say(f"Signalbox demo; everything of it lies in {root}\n")
            return _play(settings_for(root, slack), slack, keep=keep)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _play(settings: FlowSettings, slack: SlackReceiver, *, keep: bool) -> int:
    home = Home(settings.home)
    is_kept = False
    try:
        _raise_own_stack(settings)
        tally, pages = _perform(settings, slack, Playbill(len(_ACTS) + 3))
        report.show_addresses(settings, pages, kept=keep)
        is_kept = keep
    finally:
        if not is_kept:
            go_undisturbed()
            # With a lost terminal nobody can be told, which must not keep the stack running.
            with suppress(OSError):
                say("\nstopping ...")
            stop(home)
            say(f"nothing is left running; the logs are in {home.logs}")
    if is_kept:
        say(f"\nstop it with: SIGNALBOX_HOME={settings.home} signalbox down")
        say("the receiver that played Slack ends here; later notices wait in the outbox")
    say(f"\n{tally}")
    return 0 if tally.is_clean else 1


def _raise_own_stack(settings: FlowSettings) -> None:
    stack = raise_stack(settings)
    for name, placed in stack.placed.items():
        if placed.action is not Action.START:
            problem = f"somebody else took {placed.url} while {name} was being started"
            raise CommandFailed(problem, next_step="run the demo again")


def _perform(
    settings: FlowSettings, slack: SlackReceiver, playbill: Playbill
) -> tuple[Tally, list[tuple[str, str]]]:
    """All acts; the table at the end also when one of them did not end as it should."""
    home = Home(settings.home)
    references = References(home.root / "demo")
    playbill.play("train and register the digits example", lambda: train(settings, home.log("training")))
    with ExitStack() as open_clients:
        mlflow = open_clients.enter_context(registry.connect(settings))
        runs = FlowRuns(open_clients.enter_context(orchestrator.connect(settings)))
        serving = open_clients.enter_context(ServingClient.of(settings))
        playbill.play("champion to version 1", lambda: _crown_first(settings, mlflow, references))
        traffic = open_clients.enter_context(flowing(settings, references, home.log("traffic")))
        stage = Stage(settings, traffic, Servers(mlflow, serving, runs, slack), playbill)
        try:
            playbill.play(_TRAFFIC, lambda: _await_traffic(stage))
            for title, act in _ACTS:
                playbill.play(title, partial(act, stage))
        except (SignalboxError, httpx.HTTPError):
            _conclude(stage)
            raise
        return _conclude(stage), report.prefect_pages(stage.measured, runs)


def _crown_first(settings: FlowSettings, mlflow: httpx.Client, references: References) -> str:
    set_alias(mlflow, Alias.CHAMPION, "1")
    scans, cache = real_scans(), references.folder / "cache"
    measure(settings, _GOOD, cache, scans).save(references.plain)
    measure(settings, _GOOD, cache, inverted(scans)).save(references.inverted)
    mixed = measure(settings, (*_GOOD, *_ANSWERING), cache, half_faint(scans))
    with_raising(mixed, measure(settings, _RAISING, cache, scans)).save(references.mixed)
    answers = wait_until(
        lambda: is_ready(settings.serving_url, f"/v2/models/{MODEL}/versions/1/ready"), _FIRST_ANSWER_SECONDS
    )
    if not answers:
        problem = f"version 1 did not answer within {_FIRST_ANSWER_SECONDS:.0f} s"
        raise CommandFailed(problem, next_step=f"see {Home(settings.home).log('serving')}")
    return "version 1 is served; what each version must answer was measured from its files"


def _await_traffic(stage: Stage) -> str:
    first = stage.first_answer("1", 0.0, _FIRST_ANSWER_SECONDS)
    stage.wait_for_answers(_FEW_ANSWERS, first.ended, _FIRST_ANSWER_SECONDS)
    return f"version 1 answers {RATE_PER_SECOND} requests per second, each checked"


def _conclude(stage: Stage) -> Tally:
    records = stage.traffic.finish()
    tally = judge(records, list(stage.periods), stage.gaps)
    report.show_table(tally, stage.measured)
    report.show_rollouts(stage.settings, stage.measured.concluded)
    report.show_faults(tally, report.first_moment(records))
    return tally


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        step = "install them with: pip install 'signalbox[demo]'"
        raise CommandFailed(f"the demo needs packages that are missing: {', '.join(missing)}", next_step=step)
