"""What the registry no longer names: answered for a while, then gone; never cut off by a slip."""

from pathlib import Path

import pytest

from tests.integration.conftest import StartServing
from tests.mlflow_double import MlflowDouble
from tests.mlflow_registry import MlflowRegistry
from tests.models import onnx_adder
from tests.traffic import Traffic, failed
from tests.waiting import holds

pytestmark = [pytest.mark.integration, pytest.mark.fault("F23")]

GRACE_SECONDS = 3.0
GRACE_MINUTES = GRACE_SECONDS / 60


@pytest.mark.parametrize("way", ["alias deleted", "version deleted", "model deleted", "model renamed"])
def test_model_answers_on_for_a_while_when_no_longer_named(
    registry: MlflowRegistry, start_serving: StartServing, way: str
) -> None:
    """The grace period passes in full, people are told, then 404 names what exists."""
    stays, goes = registry.model("onnx:1", prefix="orphan"), registry.model("onnx:2", prefix="orphan")
    stays.point("1")
    goes.point("1")
    serving = start_serving(f"{stays.name},{goes.name}", orphan_minutes=GRACE_MINUTES)
    name = goes.name
    if way == "alias deleted":
        goes.unpoint()
    elif way == "version deleted":
        goes.delete_version("1")
    elif way == "model deleted":
        goes.delete()
    else:
        goes.rename(f"{name}-renamed")
    with Traffic(serving.url, stays.name, rate_per_second=20) as traffic:
        holds(lambda: serving.infer(name).added == 2.0, "it answers", seconds=GRACE_SECONDS * 0.8)
        assert [n.model for n in serving.notices("champion_orphaned", name)] == [name]
        serving.wait(lambda: serving.infer(name).status == 404, "it is gone")
    told = serving.infer(name).error
    assert told is not None
    assert name in told
    assert f"available: {stays.name}" in told
    assert failed(traffic.samples) == []
    serving.assert_nothing_lost()


def test_alias_deleted_by_mistake_costs_nothing_when_set_again(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Set again within the grace period, no request fails and the clock starts anew."""
    model, other = registry.model("onnx:1", prefix="orphan"), registry.model("onnx:2", prefix="orphan")
    model.point("1")
    other.point("1")
    serving = start_serving(f"{model.name},{other.name}", orphan_minutes=GRACE_MINUTES)
    with Traffic(serving.url, model.name, rate_per_second=50) as traffic:
        for _ in range(2):
            model.unpoint()
            serving.wait(
                lambda: serving.model(model.name)["aliases"]["champion"]["wanted"] is None, "it is noticed"
            )
            model.point("1")
            serving.wait(
                lambda: serving.model(model.name)["aliases"]["champion"]["wanted"] == "1", "it is named"
            )
        count = traffic.answers_of("1")
        enough = count + int(50 * GRACE_SECONDS * 1.2)
        serving.wait(lambda: traffic.answers_of("1") >= enough, "answers beyond the grace period")
    assert failed(traffic.samples) == []
    serving.assert_nothing_lost()


def test_emptied_registry_is_a_fault_when_every_model_vanished(
    registry: MlflowRegistry, start_serving: StartServing
) -> None:
    """Nothing that is served is named any more: shown as stale, answered on, also after a kill."""
    model = registry.model("onnx:1", prefix="orphan")
    model.point("1")
    serving = start_serving(model.name, orphan_minutes=0)
    model.delete()
    with Traffic(serving.url, model.name, rate_per_second=50) as traffic:
        serving.wait(lambda: serving.model(model.name)["registry_stale"], "it is shown as stale")
        holds(lambda: serving.infer(model.name).version == "1", "it answers", seconds=2)
    assert "names none of the models being served" in serving.model(model.name)["registry_stale"]
    assert failed(traffic.samples) == []
    serving.kill()
    serving.start_ready()
    holds(lambda: serving.infer(model.name).version == "1", "it answers", seconds=1)
    serving.assert_nothing_lost()


def test_other_database_is_a_fault_when_it_names_none_of_the_models(
    registry: MlflowRegistry, start_serving: StartServing, double: MlflowDouble, tmp_path: Path
) -> None:
    """MLflow pointed elsewhere by mistake: answered on, named as stale, followed again once it is back."""
    model = registry.model("onnx:1", "onnx:2", prefix="orphan")
    model.point("1")
    serving = start_serving(f"{model.name},other", orphan_minutes=0)
    double.add("other", onnx_adder(tmp_path / "other", 5.0))
    double.point("other", "1")
    serving.terminate()
    serving.mlflow_url = double.url
    serving.start_ready()
    serving.wait(lambda: serving.model(model.name)["registry_stale"], "it is shown as stale")
    holds(lambda: serving.infer(model.name).version == "1", "it answers", seconds=2)
    assert "names none of the models" in serving.model(model.name)["registry_stale"]
    serving.assert_nothing_lost()
    serving.terminate()
    serving.mlflow_url = registry.server.url
    serving.start_ready()
    model.point("2")
    serving.wait_for(model.name, "2")
    serving.assert_nothing_lost()
