"""Where the report of a promotion is left: beside the version's run in MLflow, and as artifacts in Prefect.

The rollout's id joins them: it is in the report, in its name, and a tag of the flow run.
"""

from base64 import b64encode
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.catalog.run_log import log_file
from flows.publication import artifact_key
from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.plot import stages_plot
from flows.rollout.render import checks_of, outcome_markdown, sentence, stages_of
from flows.wiring import Wiring
from serving.core.errors import NotServed, RegistryUnavailable
from serving.core.model import VersionRef
from serving.store.rollouts import Rollout

TAG = "rollout:"


def mark_run(rollout: Rollout) -> None:
    """Tag the flow run, so that Prefect finds every run that worked on the rollout."""
    if (run_id := runtime.flow_run.id) is None:
        return
    tags = sorted({*runtime.flow_run.tags, f"{TAG}{rollout.id}"})
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(str(run_id)), tags=tags)
    except httpx.HTTPError as error:  # a run that cannot be found by it is a run all the same
        get_run_logger().warning("the run was not tagged with its rollout: %s", error)


def report_of(wiring: Wiring, outcome: Outcome, model: str) -> str:
    """The report; that of a rollout that has ended is left beside the version's run, if MLflow is there."""
    png = stages_plot(outcome.rollout) if outcome.rollout is not None else None
    if not _is_final(outcome) or outcome.rollout is None:
        return outcome_markdown(outcome, model, _inline(png))
    try:
        return _left_in_mlflow(wiring, outcome, outcome.rollout, png)
    except (RegistryUnavailable, NotServed) as error:
        get_run_logger().warning("the report is not in MLflow: %s", error)
        return outcome_markdown(outcome, model, _inline(png))


def publish(outcome: Outcome, model: str, report: str) -> None:
    """Leave the report where Prefect's users look for it; of a joined rollout it is another run's to tell."""
    if outcome.verdict is Verdict.JOINED:
        return
    key = artifact_key("promotion", model)
    create_markdown_artifact(key=key, markdown=report, description=sentence(outcome))
    if rows := checks_of(outcome):
        create_table_artifact(key=f"{key}-checks", table=rows, description="validation and benchmark")
    if outcome.rollout is not None and (stages := stages_of(outcome.rollout)):
        create_table_artifact(key=f"{key}-stages", table=stages, description="evidence by stage")


def _is_final(outcome: Outcome) -> bool:
    ended = outcome.rollout
    return ended is not None and ended.state.is_terminal and outcome.verdict is not Verdict.JOINED


def _left_in_mlflow(wiring: Wiring, outcome: Outcome, ended: Rollout, png: bytes | None) -> str:
    run_id = wiring.registry.version(VersionRef(ended.model, ended.version)).run_id
    if not run_id:
        return outcome_markdown(outcome, ended.model, _inline(png))
    name = f"signalbox/rollout-{ended.id}"
    picture = log_file(wiring.client, run_id, f"{name}.png", png) if png is not None else None
    report = outcome_markdown(outcome, ended.model, picture)
    log_file(wiring.client, run_id, f"{name}.md", report.encode())
    return report


def _inline(png: bytes | None) -> str | None:
    """The picture itself as its address, where no run of MLflow could take it."""
    return f"data:image/png;base64,{b64encode(png).decode()}" if png is not None else None
