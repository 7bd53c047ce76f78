"""The functional level: measured through serving, told once, and nobody's failure is another's."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.check_health import checked
from flows.settings import FlowSettings
from flows.wiring import Wiring
from serving.core.clock import ManualClock
from serving.core.health import Status
from serving.core.labels import Label
from serving.core.model import Tag, VersionRef
from serving.core.scored import Scored
from serving.store import labels, levels, outbox, policies
from serving.store.database import open_engine
from serving.store.guard import Guard
from serving.store.labels import Joined
from serving.store.leases import Leases
from serving.store.registry import Registry, connect
from tests.flows.answers import Answers, Asked, answering
from tests.mlflow_double import Fault, MlflowDouble

LABELS = [0, 1, 1, 0]
RIGHT = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]
WRONG = [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]


class Served:
    """What serving answers with, whatever it is asked."""

    def __init__(self) -> None:
        self.output: Any = RIGHT
        self.status = 200
        self.basic = Status.UNKNOWN
        self.health_status = 200

    def answer(self, asked: Asked) -> tuple[int, Any]:
        if asked.path == "/api/v2/model-health":
            return self.health_status, {"models": [self.health()]}
        array = np.asarray(self.output)
        output = {"name": "y", "datatype": "FP32", "shape": array.shape, "data": array.ravel().tolist()}
        told = {"model_version": "1", "parameters": {"variant": "champion"}, "outputs": [output]}
        return self.status, told if self.status == 200 else {"error": "it raised"}

    def health(self) -> dict[str, Any]:
        at = ManualClock().now().isoformat()
        basic = {"status": str(self.basic), "message": "m", "checked_at": at}
        unknown = {"status": "unknown", "message": "", "checked_at": None}
        return {
            "model": "digits",
            "version": "1",
            "levels": {
                "basic": basic if self.basic is not Status.UNKNOWN else unknown,
                "operational": unknown,
            },
        }


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
def serving(served: Served) -> Iterator[Answers]:
    with answering(served.answer) as answers:
        yield answers


@pytest.fixture
def wiring(
    home: Path, double: MlflowDouble, serving: Answers, store_template: Path, tmp_path: Path
) -> Iterator[Wiring]:
    """One model, `digits`, whose version 1 is the champion and declares a set of four rows."""
    arrays: dict[str, Any] = {"input:x": np.zeros((4, 3), dtype=np.float32), "labels": np.asarray(LABELS)}
    np.savez(tmp_path / "evaluation.npz", **arrays)
    declare(double, "digits", tmp_path)
    home.mkdir()
    shutil.copy(store_template, home / "signalbox.db")
    settings = FlowSettings(mlflow_url=double.url, serving_url=serving.url)
    engine, clock = open_engine(settings.database_url), ManualClock()
    with connect(settings) as client:
        registry, leases = Registry(client, settings.serves), Leases(engine, clock)
        guard = Guard(registry, engine, leases)
        yield Wiring(settings, clock, engine, client, registry, leases, guard)
    engine.dispose()


def declare(double: MlflowDouble, model: str, folder: Path) -> None:
    double.add(model, folder)
    double.point(model, "1")
    double.models[model].tags[Tag.EVALUATION_SET] = f"mlflow-artifacts:/{model}/1/evaluation.npz"


def measured(wiring: Wiring) -> list[str]:
    """What is said of levels, not of tags."""
    return [sentence for sentence in checked(wiring) if ": health of version" not in sentence]


def level(wiring: Wiring) -> tuple[Status, str | None]:
    [stored] = levels.all_levels(wiring.engine)
    return stored.report.status, stored.version


def test_level_is_healthy_when_the_answers_are_right(wiring: Wiring, serving: Answers) -> None:
    """Asked over the protocol every client uses; the first result is the baseline."""
    assert measured(wiring) == ["digits: healthy, accuracy 1.000 on 4 declared rows"]
    assert level(wiring) == (Status.HEALTHY, "1")
    asked, _ = serving.asked
    assert asked.path == "/v2/models/digits/infer"
    assert asked.body["inputs"][0]["shape"] == [4, 3]


@pytest.mark.parametrize(("floor", "status"), [(0.74, Status.HEALTHY), (0.76, Status.WARNING)])
def test_floor_is_the_models_own_when_one_is_kept(
    wiring: Wiring, served: Served, floor: float, status: Status
) -> None:
    """Of four rows three are right; the settings' floor is 0.8."""
    kept = {"min_functional_accuracy": floor}
    policies.put(wiring.engine, "digits", policies.HEALTH, kept, "anna", wiring.clock.now())
    served.output = [*RIGHT[:3], WRONG[3]]
    checked(wiring)
    assert level(wiring) == (status, "1")


@pytest.mark.parametrize("failing", ["accuracy", "no answer"])
def test_people_are_told_once_when_the_level_turns_critical(
    wiring: Wiring, served: Served, failing: str
) -> None:
    """Not every minute for as long as it lasts; well again and critical again, they are told again."""
    for _ in range(2):
        checked(wiring)
        served.output, served.status = (WRONG, 200) if failing == "accuracy" else (RIGHT, 500)
        for _ in range(3):
            assert "digits: critical" in checked(wiring)[0]
            for row in outbox.pending(wiring.engine, wiring.clock.now(), 10):
                outbox.delivered(wiring.engine, row.id, "log", wiring.clock.now())
        served.output, served.status = RIGHT, 200
    told = [row.notice.kind for row in outbox.recent(wiring.engine, 10)]
    assert told == ["health_critical"] * 2


@pytest.mark.parametrize(
    ("model_type", "output"), [("predictor", [0.5, 1.0, 1.5, 2.0]), (None, [[0.5], [1.0], [1.5], [2.0]])]
)
def test_level_is_not_measured_when_the_model_is_no_classifier(
    wiring: Wiring, served: Served, double: MlflowDouble, model_type: str | None, output: Any
) -> None:
    """A prediction is not a wrong class: no critical level is made up for it."""
    served.output = output
    if model_type is not None:
        double.models["digits"].tags[Tag.MODEL_TYPE] = model_type
    assert measured(wiring) == ["digits: not measured, only a classifier has an accuracy"]
    assert levels.all_levels(wiring.engine) == []


def test_others_are_measured_when_one_set_cannot_be_used(
    wiring: Wiring, served: Served, double: MlflowDouble, tmp_path: Path
) -> None:
    declare(double, "a-broken-one", tmp_path)
    double.models["a-broken-one"].tags[Tag.EVALUATION_SET] = "mlflow-artifacts:/digits/1/none.npz"
    double.add("undeclared", tmp_path)
    double.point("undeclared", "1")
    first, *others = measured(wiring)
    assert first.startswith("a-broken-one: not measured, there is no evaluation set at")
    assert others == [
        "digits: healthy, accuracy 1.000 on 4 declared rows",
        "undeclared: no evaluation set is declared",
    ]


def test_level_is_not_measured_when_the_answer_does_not_fit_the_labels(
    wiring: Wiring, served: Served
) -> None:
    """One model's odd output ends nobody else's check."""
    served.output = [[1.0, 0.0]]
    [sentence] = measured(wiring)
    assert sentence == "digits: not measured, the output has shape [1, 2] for 4 rows"


def label(wiring: Wiring, right: int, of: int, name: str) -> None:
    """Labels of that many answers of version 1, given now."""
    now = wiring.clock.now()
    given = [
        Joined(
            label=Label(request_id=f"{name}-{n}", row=0, label=1, at=now),
            ref=VersionRef("digits", "1"),
            variant="champion",
            answered_at=now - timedelta(minutes=1),
            said="1",
            scored=Scored(classified=1, right=int(n < right)),
        )
        for n in range(of)
    ]
    labels.count(wiring.engine, given)


def test_level_follows_labels_when_there_are_enough(wiring: Wiring, served: Served) -> None:
    """Though the declared set is answered as well as ever."""
    clock = wiring.clock
    assert isinstance(clock, ManualClock)
    label(wiring, 49, 49, "few")
    assert measured(wiring) == ["digits: healthy, accuracy 1.000 on 4 declared rows"]
    label(wiring, 1, 1, "enough")
    [sentence] = measured(wiring)
    assert sentence.endswith("live accuracy 1.000 on 50 labelled answers")
    clock.advance(2 * 3600)
    label(wiring, 30, 60, "worse")
    [sentence] = measured(wiring)
    assert "digits: critical" in sentence
    assert "live accuracy 0.500 on 60 labelled answers, 0.500 below its first" in sentence
    assert [row.notice.kind for row in outbox.recent(wiring.engine, 10)] == ["health_critical"]


def test_labels_alone_make_a_level_when_no_set_is_declared(wiring: Wiring, double: MlflowDouble) -> None:
    """As for a model of which nothing but its traffic is known."""
    del double.models["digits"].tags[Tag.EVALUATION_SET]
    assert measured(wiring) == ["digits: no evaluation set is declared"]
    label(wiring, 45, 50, "some")
    assert measured(wiring) == ["digits: healthy, live accuracy 0.900 on 50 labelled answers"]
    assert level(wiring) == (Status.HEALTHY, "1")


def tag(double: MlflowDouble) -> str | None:
    return double.models["digits"].versions["1"].tags.get(Tag.HEALTH)


def tag_writes(double: MlflowDouble) -> int:
    return sum("model-versions/set-tag" in call for call in double.seen)


@pytest.mark.parametrize(
    ("basic", "output", "status"),
    [
        (Status.HEALTHY, RIGHT, "healthy"),
        (Status.HEALTHY, [*RIGHT[:3], WRONG[3]], "warning"),
        (Status.CRITICAL, RIGHT, "critical"),
    ],
)
def test_version_shows_its_health_in_the_registry(
    wiring: Wiring, served: Served, double: MlflowDouble, basic: Status, output: Any, status: str
) -> None:
    """The worst of serving's levels and the flows'; written again only when it changed."""
    served.basic, served.output = basic, output
    assert f"digits: health of version 1 is {status}, was not told" in checked(wiring)
    checked(wiring)
    assert (tag(double), tag_writes(double)) == (status, 1)
    served.basic, served.output = Status.WARNING, RIGHT
    checked(wiring)
    assert tag(double) == "warning"
    assert tag_writes(double) == (1 if status == "warning" else 2)


def test_tag_stays_when_nothing_was_measured(wiring: Wiring, served: Served, double: MlflowDouble) -> None:
    """It is the last known health."""
    double.models["digits"].versions["1"].tags[Tag.HEALTH] = "warning"
    del double.models["digits"].tags[Tag.EVALUATION_SET]
    assert checked(wiring) == ["digits: no evaluation set is declared"]
    assert tag(double) == "warning"


def test_level_is_kept_when_the_tag_cannot_be_written(
    wiring: Wiring, served: Served, double: MlflowDouble
) -> None:
    """Told, and tried again a minute later."""
    double.fault = Fault(500, where="model-versions/set-tag")
    *_, sentence = checked(wiring)
    assert sentence.startswith("digits: health tag not written: ")
    assert level(wiring) == (Status.HEALTHY, "1")
    double.fault = None
    assert checked(wiring)[-1] == "digits: health of version 1 is healthy, was not told"


def test_tag_stays_when_serving_does_not_tell_its_health(
    wiring: Wiring, served: Served, double: MlflowDouble
) -> None:
    """Half of the levels would be missing."""
    served.health_status = 503
    *_, sentence = checked(wiring)
    assert sentence.startswith("health tags are left as they are: serving does not tell its health")
    assert tag(double) is None
