"""`signalbox alerts`: the notices of the outbox and how far they came, and a test message to Slack."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from flows.alerts import passage
from flows.alerts.notify import Broken, Dispatch, Retry, Sent, Unknown
from flows.alerts.passage import Passages, Stage
from flows.cli.console import AsJson, print_json, print_table, say, text
from flows.cli.errors import CommandFailed
from flows.cli.store import opened_store
from flows.settings import FlowSettings
from serving.store import outbox
from serving.store.database import check
from serving.store.outbox import Notice, QueuedNotice, Severity

alerts_app = typer.Typer(help="Show notices, or test a channel.", invoke_without_command=True)
test_app = typer.Typer(help="Send one test message.", no_args_is_help=True)
alerts_app.add_typer(test_app, name="test")

_COLUMNS = ("notice", "at", "severity", "kind", "model", "version", "title", "state", "tries", "error")
_DEFAULT_ROWS = 20
_SET_UP = "set SIGNALBOX_SLACK_BOT_TOKEN and SIGNALBOX_SLACK_CHANNEL, or SIGNALBOX_SLACK_WEBHOOK_URL"

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many notices.")]


@alerts_app.callback()
def alerts(context: typer.Context, limit: Limit = _DEFAULT_ROWS, as_json: AsJson = False) -> None:
    """Show the last notices, newest last, and where each was delivered."""
    if context.invoked_subcommand is not None:
        return
    with opened_store() as engine:
        check(engine)
        notices = outbox.recent(engine, limit)
    if as_json:
        print_json([_plain(queued) for queued in notices])
    else:
        print_table(_COLUMNS, map(_cells, notices), empty="no notice yet")


@test_app.callback()
def _group() -> None:
    """Keeps `slack` a command of its own while it is the only one."""


@test_app.command("slack")
def try_slack(as_json: AsJson = False) -> None:
    """Send one message to Slack with the settings as they are, and say what Slack answered."""
    # Imported here: the other commands need neither the SDK nor what the flows are made of.
    from flows.wiring import slack_channel

    channel = slack_channel(FlowSettings())
    if channel is None:
        raise CommandFailed("Slack is not set up", next_step=_SET_UP)
    outcome = channel.send(_test_dispatch(datetime.now(UTC)))
    if isinstance(outcome, Sent):
        _print_sent(outcome, as_json)
    else:
        raise _refused(outcome)


def _print_sent(outcome: Sent, as_json: bool) -> None:
    if as_json:
        print_json({"sent": True, "receipt": dict(outcome.receipt)})
        return
    named = ", ".join(f"{name} {value}" for name, value in outcome.receipt.items())
    say(f"Slack took the message ({named or 'the webhook answered ok'})")


def _refused(outcome: Retry | Broken | Unknown) -> CommandFailed:
    if isinstance(outcome, Unknown):
        return CommandFailed(
            f"whether Slack took the message is unknown: {outcome.reason}", next_step="look into the channel"
        )
    if isinstance(outcome, Retry) and outcome.after_seconds:
        step = f"try again in {outcome.after_seconds:g} s"
        return CommandFailed(f"Slack did not take the message: {outcome.reason}", next_step=step)
    return CommandFailed(f"Slack did not take the message: {outcome.reason}")


def _test_dispatch(now: datetime) -> Dispatch:
    notice = Notice(
        kind="test",
        severity=Severity.INFO,
        title="Signalbox can reach this channel",
        facts={"sent_by": "signalbox alerts test slack"},
        dedup_key="test",
    )
    return Dispatch(0, notice, now)


def _plain(queued: QueuedNotice) -> dict[str, Any]:
    notice = queued.notice
    return {
        "id": queued.id,
        "created_at": queued.created_at.isoformat(),
        "kind": notice.kind,
        "severity": notice.severity,
        "model": notice.model,
        "version": notice.version,
        "title": notice.title,
        "facts": dict(notice.facts),
        "state": _state(queued),
        "channels": {name: _channel(state) for name, state in passage.read(queued.receipt).items()},
        "attempts": queued.attempts,
        "last_error": queued.last_error,
        "next_try_at": None if queued.delivered_at else queued.next_try_at.isoformat(),
        "delivered_at": queued.delivered_at.isoformat() if queued.delivered_at else None,
    }


def _channel(state: passage.Passage) -> dict[str, Any]:
    return {
        "stage": state.stage,
        "attempts": state.attempts,
        "maybe_duplicate": state.maybe_duplicate,
        "receipt": dict(state.receipt),
    }


def _cells(queued: QueuedNotice) -> list[str]:
    notice = queued.notice
    error = None if queued.delivered_at else queued.last_error
    cells = [queued.id, queued.created_at.isoformat(timespec="seconds"), notice.severity, notice.kind]
    cells += [notice.model, notice.version, notice.title, _state(queued), queued.attempts, error]
    return [text(cell) for cell in cells]


def _state(queued: QueuedNotice) -> str:
    """`delivered to slack`, `maybe delivered`, `waiting`."""
    passages: Passages = passage.read(queued.receipt)
    doubtful = any(state.maybe_duplicate or state.stage is Stage.SENDING for state in passages.values())
    if queued.delivered_at is None:
        return "maybe delivered" if doubtful else "waiting"
    names = ", ".join(sorted(passages)) or "unknown"
    return f"delivered to {names}" + (", maybe twice" if doubtful else "")
