"""Staged rollouts under live traffic with a real MLflow and a real server: what is good goes through, what is
slow, fails or answers otherwise goes back, and no caller notices any of it."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from flows.rollout.keeper import holder_of
from flows.rollout.outcome import Outcome, Verdict
from flows.rollout.parts import Parts
from flows.rollout.policy import Usual
from flows.rollout.promotion import Asked, record, work
from flows.settings import FlowSettings
from flows.wiring import wired
from serving.core.model import Alias, Tag
from serving.store.rollouts import Entry
from serving.store.text import JsonValue
from tests.flows.rollout.line import Judgement
from tests.integration.conftest import StartServing
from tests.mlflow_registry import MlflowRegistry, RegisteredModel
from tests.serving_process import ServingProcess, request_body
from tests.traffic import Traffic, failed, wrong

pytestmark = pytest.mark.integration

RATE = 60
STAGES = [5, 25, 50, 100]


def promoted(
    serving: ServingProcess, model: RegisteredModel, policy_file: Path | None = None, **policy: JsonValue
) -> Outcome:
    """Version 2 by stages; validation and benchmark have nothing against it."""
    settings = FlowSettings(
        home=serving.home, mlflow_url=serving.mlflow_url, store_url=serving.store_url, models=serving.models
    )
    with wired(settings) as wiring:
        parts = Parts(
            wiring.engine,
            wiring.registry,
            wiring.guard,
            wiring.clock,
            lambda rollout, champion: Judgement(),
            lambda rollout, champion: Judgement(),
        )
        plan: dict[str, JsonValue] = {"stages": STAGES, "stage_seconds": 3.0, **policy}
        asked = Asked(
            model=model.name,
            version="2",
            asked_at=wiring.clock.now(),
            by="anna",
            strategy="staged",
            policy=plan,
            usual=Usual(policy_file=policy_file),
        )
        entry = record(wiring.engine, wiring.registry, asked, wiring.clock)
        assert isinstance(entry, Entry), entry
        return work(entry.rollout, parts, wiring.leases, holder_of(uuid4().hex), print)


def assert_over(model: RegisteredModel, champion: str) -> None:
    aliases = model.aliases()
    assert aliases[Alias.CHAMPION] == champion
    assert Alias.CHALLENGER not in aliases
    assert Tag.TRAFFIC not in model.tags()


def test_good_version_goes_through_every_stage_under_traffic(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Each stage saw the share it asked for; no request failed, none was answered wrongly."""
    model = registry.model("onnx:1", "onnx:2", prefix="staged")
    model.point("1")
    serving = start_serving(model.name)
    serving.wait_for(model.name, "1")
    with Traffic(serving.url, model.name, rate_per_second=RATE) as traffic:
        outcome = promoted(serving, model)
        serving.wait(lambda: traffic.samples[-1].version == "2", "version 2 answers")
    assert outcome.verdict is Verdict.PROMOTED, outcome
    assert outcome.warnings == ()
    assert_over(model, "2")
    assert failed(traffic.samples) == []
    assert wrong(traffic.samples, model.constants) == []
    assert {"champion", "challenger"} <= set(Counter(sample.variant for sample in traffic.samples))
    status = (outcome.rollout.status if outcome.rollout else None) or {}
    assert [stage["percent"] for stage in status["passed"]] == STAGES
    measured = {metric["name"]: metric["verdict"] for metric in status["passed"][0]["metrics"]}
    assert measured == {
        "error_rate": "success",
        "latency": "success",
        "predictions": "success",
        "labels": "not_measured",
    }


@pytest.mark.fault("F13")
@pytest.mark.parametrize(
    ("champion", "recipe", "x", "words"),
    [
        pytest.param("torch:1", "slow:1", 0.5, ("latency: ",), id="slow"),
        pytest.param("onnx:1", "raises", -0.5, ("ejected it", "error rate: "), id="raises"),
        pytest.param("onnx:1", "onnx:2", 0.5, ("predictions: ",), id="other-answers"),
    ],
)
def test_worse_version_is_rolled_back_under_traffic(
    registry: MlflowRegistry,
    start_serving: StartServing,
    champion: str,
    recipe: str,
    x: float,
    words: tuple[str, ...],
) -> None:
    """By evidence or by serving's own ejection; callers of a failing version get the champion's answer."""
    model = registry.model(champion, recipe, prefix="staged")
    model.tag(Tag.MODEL_TYPE, "predictor")
    model.point("1")
    serving = start_serving(model.name)
    serving.wait_for(model.name, "1")
    with Traffic(serving.url, model.name, rate_per_second=RATE, x=x) as traffic:
        outcome = promoted(serving, model)
        serving.wait(lambda: traffic.samples[-1].version == "1", "version 1 answers")
    assert outcome.verdict is Verdict.ROLLED_BACK, outcome
    assert any(word in outcome.reason for word in words), outcome.reason
    serving.wait(lambda: Alias.CHALLENGER not in model.aliases(), "alias challenger is gone")
    assert_over(model, "1")
    assert failed(traffic.samples) == []


@contextmanager
def labelling(serving: ServingProcess, model: RegisteredModel, truth: float) -> Iterator[None]:
    """Somebody asks and tells at once what the right answer would have been, until the block ends."""
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.05):
            path = f"/v2/models/{model.name}/infer"
            answer = serving.call("POST", path, json=request_body(0.5))
            label = {"request_id": answer.headers["x-request-id"], "label": [truth] * 3}
            assert serving.call("POST", "/api/v2/feedback", json=label).status_code == 202

    thread = threading.Thread(target=ask, name="labelling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.fault("F13")
def test_version_with_worse_labels_is_rolled_back_before_it_answers_anybody(
    registry: MlflowRegistry, start_serving: StartServing, tmp_path: Path
) -> None:
    """As quick, without errors, other answers allowed: in the shadow stage its copies prove to be wrong."""
    policy = tmp_path / "policy.toml"
    policy.write_text(
        """[predictor]
required = ["error_rate", "latency", "predictions", "labels"]
max_median_difference_ratio = 10.0
"""
    )
    model = registry.model("onnx:1", "onnx:2", prefix="staged")
    model.tag(Tag.MODEL_TYPE, "predictor")
    model.point("1")
    serving = start_serving(model.name)
    serving.wait_for(model.name, "1")
    with (
        Traffic(serving.url, model.name, rate_per_second=RATE) as traffic,
        labelling(serving, model, truth=1.55),
    ):
        outcome = promoted(serving, model, policy, stages="shadow,50,100", stage_deadline_seconds=90)
    assert outcome.verdict is Verdict.ROLLED_BACK, outcome
    words = "at 0 % (copies only): labels: mean error on "
    assert outcome.reason.startswith(words), outcome.reason
    serving.wait(lambda: Alias.CHALLENGER not in model.aliases(), "alias challenger is gone")
    assert_over(model, "1")
    assert failed(traffic.samples) == []
    assert {sample.version for sample in traffic.samples} == {"1"}
