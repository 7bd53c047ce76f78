"""The act in which people hear of it: the outbox goes to Slack, or what answers as Slack does here."""

from flows.cli.demo.progress import one_line
from flows.cli.demo.stage import Stage
from flows.cli.errors import CommandFailed
from serving.store import outbox
from serving.store.database import open_engine
from serving.store.outbox import QueuedNotice

_DEPLOYMENT = "process-alerts/process-alerts"
_RUN_SECONDS = 60.0
_DELIVERED_SECONDS = 90.0
_NOTICES = 500
_EXPECTED = frozenset({"promoted", "refused", "rolled_back", "challenger_ejected", "drifted"})
_CHARACTERS = 110


def deliver(stage: Stage) -> str:
    """Run the delivery, then show what the channel holds."""
    run = stage.runs.start(_DEPLOYMENT, {})
    last = stage.runs.follow(run, _RUN_SECONDS, stage.tell)
    if last.kind != "COMPLETED":
        raise CommandFailed(f"run {last.name} ended {last.state}: {last.message}")
    notices = _delivered(stage)
    if missing := sorted(_EXPECTED - {queued.notice.kind for queued in notices}):
        raise CommandFailed(f"nobody was told of: {', '.join(missing)}")
    if stage.slack.refused:
        raise CommandFailed(f"Slack would refuse a message: {stage.slack.refused[0]}")
    if len(stage.slack.messages) < len(notices):
        raise CommandFailed(f"{len(notices)} notices are sent, {len(stage.slack.messages)} have arrived")
    stage.measured.slack_messages = len(stage.slack.messages)
    titles = (one_line(message.text, _CHARACTERS) for message in stage.slack.messages)
    return "\n  ".join((f"{len(stage.slack.messages)} messages in the channel, in order:", *titles))


def _delivered(stage: Stage) -> list[QueuedNotice]:
    """Every notice there is, once none waits: the minutely flow delivers too."""
    engine = open_engine(stage.settings.database_url)
    try:
        stage.wait(
            lambda: outbox.waiting(engine) == 0, _DELIVERED_SECONDS, "notices still wait to be delivered"
        )
        return outbox.recent(engine, _NOTICES)
    finally:
        engine.dispose()
