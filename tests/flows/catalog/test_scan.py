"""Passes over a folder against a real store and registry: once each, told once, nothing lost on the way."""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from flows.catalog.discover import Candidate, fingerprint
from flows.catalog.outcome import Outcome, Result
from flows.catalog.publish import Publisher
from flows.catalog.register import Request, register
from flows.catalog.scan import ScanReport
from flows.catalog.tracking import Tracking
from serving.core.model import Tag, VersionRef
from serving.store import audit, model_files, outbox
from serving.store.model_files import ModelFile, State
from tests.flows.catalog.prepared import QUIET_SECONDS, Place
from tests.mlflow_server import free_port

pytestmark = pytest.mark.integration


def results(report: ScanReport) -> dict[str, str]:
    return {outcome.path.name: str(outcome.result) for outcome in report.outcomes}


def versions(place: Place, name: str) -> list[str]:
    return [version.ref.version for version in place.registry.versions(name)]


def notices(place: Place) -> int:
    return outbox.waiting(place.engine)


def test_file_is_registered_once_when_passes_repeat(place: Place, name: str) -> None:
    """The second pass opens nothing: it is not even hashed."""
    place.put(f"{name}.onnx", "good")
    assert results(place.scan()) == {f"{name}.onnx": "registered"}
    again = place.scan()
    assert (again.outcomes, again.unchanged) == ([], 1)
    assert place.examiner.asked == [f"{name}.onnx"]
    assert versions(place, name) == ["1"]


class Opened:
    """Which files this process opens while it watches; an audit hook cannot be taken away again."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.is_watching = False
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.is_watching and event == "open":
            self.paths.append(str(arguments[0]))


def test_nothing_is_read_when_a_thousand_files_are_unchanged(place: Place) -> None:
    """A pass costs names, sizes and times; no model file is opened, let alone hashed."""
    paths = [place.put(f"{number % 7}/{number}.onnx", "good") for number in range(1000)]
    noted = [
        ModelFile(
            path=str(path),
            fingerprint=fingerprint(Candidate(path, place.folder), ()),
            since=place.clock.now(),
            state=State.REGISTERED,
        )
        for path in paths
    ]
    model_files.put_all(place.engine, noted, place.clock.now())
    opened = Opened()
    opened.is_watching = True
    report = place.scan()
    opened.is_watching = False
    assert (report.outcomes, report.unchanged, place.examiner.asked) == ([], 1000, [])
    assert [path for path in opened.paths if path.startswith(str(place.folder))] == []


def test_bad_file_is_told_of_once_until_it_changes(place: Place, name: str) -> None:
    """One notice and one audit row per content; a corrected file is registered."""
    path = place.put(f"{name}.onnx", b"bad")
    first = place.scan()
    assert [one.reason for one in first.of(Result.REFUSED)] == ["it is bad; make it good"]
    assert (place.scan().outcomes, notices(place)) == ([], 1)
    path.write_bytes(b"bad still")
    assert results(place.scan()) == {path.name: "refused"}
    assert notices(place) == 2
    path.write_bytes(b"good now")
    assert results(place.scan()) == {path.name: "registered"}
    actions = [row.entry.details["result"] for row in audit.tail(place.engine, action="register")]
    assert actions == ["refused", "refused", "registered"]
    assert audit.verify(place.engine).verdict is audit.Verdict.INTACT


def test_scan_goes_on_when_files_are_bad(place: Place, name: str) -> None:
    place.put("a.onnx", b"bad")
    place.put(f"{name}.onnx", "good")
    place.put("z.onnx", b"bad")
    (place.folder / "out.onnx").symlink_to("/etc/hostname")
    found = place.scan()
    assert results(found) == {
        "a.onnx": "refused",
        f"{name}.onnx": "registered",
        "out.onnx": "refused",
        "z.onnx": "refused",
    }
    again = place.scan()
    assert (again.outcomes, again.unchanged) == ([], 4)


def test_file_waits_when_it_changes_while_it_is_watched(place: Place, name: str) -> None:
    """An upload that goes on is left alone until it has stopped for the quiet period."""
    path = place.put(f"{name}.onnx", "half")
    place.on_sleep = lambda: path.write_bytes(b"half and more")
    assert results(place.scan()) == {path.name: "still changing"}
    assert place.examiner.asked == []
    place.on_sleep = lambda: None
    assert results(place.scan()) == {path.name: "registered"}


def test_file_is_taken_without_waiting_when_it_was_seen_before(place: Place, name: str) -> None:
    """A pass that was cut off after its first look is continued by the next."""
    path = place.put(f"{name}.onnx", "good")
    place.on_sleep = lambda: path.write_bytes(b"good enough")
    place.scan()
    place.clock.advance(QUIET_SECONDS)

    def nobody_waits() -> None:
        raise AssertionError("the pass waited")

    place.on_sleep = nobody_waits
    assert results(place.scan()) == {path.name: "registered"}


def test_changed_file_becomes_the_next_version(place: Place, name: str) -> None:
    path = place.put(f"{name}.onnx", "good")
    place.scan()
    path.write_bytes(b"better")
    assert results(place.scan()) == {path.name: "registered"}
    assert versions(place, name) == ["1", "2"]
    path.write_bytes(b"good")
    [back] = place.scan().outcomes
    assert (back.result, back.version) == (Result.ALREADY, "1"), "its bytes are version 1"
    assert versions(place, name) == ["1", "2"]


def test_touched_file_is_no_news(place: Place, name: str) -> None:
    """Copied over itself or with another time: read once, known as the old one, not looked into."""
    path = place.put(f"{name}.onnx", "good")
    bad = place.put("bad.onnx", b"bad")
    place.scan()
    place.examiner.asked.clear()
    for one in (path, bad):
        os.utime(one)
    assert results(place.scan()) == {path.name: "unchanged", bad.name: "unchanged"}
    assert (place.examiner.asked, versions(place, name), notices(place)) == ([], ["1"], 1)


def test_same_bytes_are_one_version_when_two_files_hold_them(place: Place, name: str) -> None:
    place.put("one.onnx", "good")
    place.put("other.onnx", "good")
    for file in ("one", "other"):
        place.put(f"{file}.model.yaml", f"name: {name}\n")
    assert sorted(results(place.scan()).values()) == ["already registered", "registered"]
    assert versions(place, name) == ["1"]


def test_version_is_described_anew_when_only_its_side_file_changes(place: Place, name: str) -> None:
    """The same version says what the side file says now; what it no longer says is taken back."""
    place.put(f"{name}.onnx", "good")
    side = place.put(
        f"{name}.model.yaml",
        "author: A\nlicence: MIT\ntags: {stage: trial, kept: x}\nmetrics: {accuracy: 0.5}\nowner: me\n",
    )
    place.scan()
    side.write_text("author: B\ntags: {kept: y}\nmetrics: {accuracy: 0.75}\nowner: you\n")
    assert results(place.scan()) == {f"{name}.onnx": "described anew"}
    [version] = place.registry.versions(name)
    assert version.tags[Tag.AUTHOR] == "B"
    assert version.tags["kept"] == "y"
    assert {"stage", str(Tag.LICENCE)} & version.tags.keys() == set()
    assert re.search(r"Author\W+B", version.description)
    assert place.registry.run(version.run_id).metrics["accuracy"] == 0.75
    assert place.registry.registered_model(name).tags[Tag.OWNER] == "you"


def test_file_is_registered_when_its_side_file_is_corrected(place: Place, name: str) -> None:
    """What was refused for its side file is judged anew with another."""
    place.put(f"{name}.onnx", "good")
    side = place.put(f"{name}.model.yaml", "nmae: x\n")
    [refused] = place.scan().outcomes
    assert "unknown key 'nmae'" in str(refused.reason)
    side.write_text("author: A\n")
    assert results(place.scan()) == {f"{name}.onnx": "registered"}


def test_weights_are_watched_first_when_a_file_names_unknown_ones(place: Place, name: str) -> None:
    """They were not seen to be complete; the same pass waits for them and goes on."""
    place.put(f"{name}.onnx", "good")
    weights = place.put("odd-weights", "1")
    place.examiner.members = ("odd-weights",)
    assert results(place.scan()) == {f"{name}.onnx": "registered"}
    weights.write_text("2")
    assert results(place.scan()) == {f"{name}.onnx": "registered"}
    assert versions(place, name) == ["1", "2"], "other weights are another model"


def test_file_beside_is_no_part_when_the_model_does_not_name_it(place: Place, name: str) -> None:
    """It is called like its weights; once the model was examined, it is known not to be."""
    place.put(f"{name}.onnx", "good")
    beside = place.put(f"{name}.bin", "notes")
    assert results(place.scan()) == {f"{name}.onnx": "registered"}
    assert place.scan().outcomes == []
    beside.write_text("other notes")
    assert place.scan().outcomes == []
    assert place.examiner.asked == [f"{name}.onnx"]


def test_command_takes_weights_that_nobody_knew_of(place: Place, name: str) -> None:
    """It does not wait to see whether they change: whoever asks says that they are complete."""
    path = place.put(f"{name}.onnx", "good")
    place.put("odd-weights", "1")
    place.examiner.members = ("odd-weights",)
    assert asked_for(place, path, name=name).result is Result.REGISTERED
    assert place.examiner.asked == [path.name, path.name]


def test_what_was_done_is_reported_when_mlflow_goes_away_in_between(place: Place, name: str) -> None:
    """The rest is tried again by the next pass."""
    place.put("a.onnx", b"bad")
    place.put(f"{name}.onnx", "good")
    place.put("z.onnx", b"bad")
    tracking = Tracking(httpx.Client(base_url=f"http://127.0.0.1:{free_port()}", trust_env=False))
    lame = Publisher(tracking, place.registry, place.clock, "tests")
    place.adapt = lambda means: replace(means, publisher=lame)
    report = place.scan()
    assert results(report) == {"a.onnx": "refused"}
    assert "did not answer" in str(report.interrupted)
    place.adapt = lambda means: means
    assert results(place.scan()) == {f"{name}.onnx": "registered", "z.onnx": "refused"}


def test_file_is_looked_into_again_when_missing_weights_arrive(place: Place, name: str) -> None:
    place.put(f"{name}.onnx", b"bad")
    place.examiner.members = ("late.bin",)
    assert results(place.scan()) == {f"{name}.onnx": "refused"}
    assert place.scan().outcomes == []
    place.examiner.asked.clear()
    place.put("late.bin", "weights")
    place.scan()
    assert place.examiner.asked == [f"{name}.onnx"]


def test_nothing_is_lost_when_mlflow_is_away(place: Place, name: str) -> None:
    """The pass says so, refuses nothing, and the next one registers."""
    place.put("a.onnx", b"bad")
    place.put(f"{name}.onnx", "good")
    with httpx.Client(base_url=f"http://127.0.0.1:{free_port()}", trust_env=False) as nowhere:
        away = replace(place, client=nowhere)
        report = away.scan()
    assert "did not answer" in str(report.interrupted)
    assert report.of(Result.REFUSED) == []
    assert notices(place) == 0
    assert results(place.scan()) == {"a.onnx": "refused", f"{name}.onnx": "registered"}


def test_file_is_no_news_when_its_folder_was_away(place: Place, name: str) -> None:
    """An unmounted folder that is back holds what was registered; after a week it is forgotten."""
    path = place.put(f"{name}.onnx", "good")
    place.scan()
    away = place.folder.rename(place.home / "away")
    report = place.scan()
    assert report.missing == (place.folder,)
    assert f"no folder {place.folder}" in report.sentence
    away.rename(place.folder)
    again = place.scan()
    assert (again.outcomes, again.unchanged) == ([], 1)
    path.unlink()
    place.scan()
    path.write_bytes(b"better")
    assert results(place.scan()) == {path.name: "registered"}, "back with other bytes, it is news"
    assert place.scan().unchanged == 1
    path.unlink()
    place.scan()
    place.clock.advance(8 * 86400)
    place.scan()
    assert model_files.known(place.engine) == {}


def asked_for(place: Place, path: Path, **said: object) -> Outcome:
    """As the command asks: now, and for an answer."""
    candidate = Candidate(path, path.parent)
    noted = model_files.get(place.engine, str(path))
    fresh = ModelFile(path=str(path), fingerprint=fingerprint(candidate, ()), since=place.clock.now())
    request = Request(candidate=candidate, file=noted or fresh, said=said, is_afresh=True)
    return register(request, place.means())


def test_command_gets_an_answer_when_the_file_is_known(place: Place, name: str) -> None:
    """Already registered is a success that names the version; a refused file is judged again."""
    path = place.put("file.onnx", "good")
    first = asked_for(place, path, name=name)
    assert (first.result, first.version) == (Result.REGISTERED, "1")
    again = asked_for(place, path, name=name)
    assert (again.result, again.version) == (Result.ALREADY, "1")
    told = asked_for(place, path, name=name, author="A")
    assert (told.result, told.version) == (Result.DESCRIBED, "1")
    assert place.registry.version(VersionRef(name, "1")).tags[Tag.AUTHOR] == "A"
    bad = place.put("bad.onnx", b"bad")
    assert asked_for(place, bad, name=name).result is Result.REFUSED
    assert asked_for(place, bad, name=name).result is Result.REFUSED
    assert place.scan().outcomes == [], "the scan has nothing to add to what the command was told"


def test_file_is_registered_again_when_its_version_was_deleted(place: Place, name: str) -> None:
    """The scan respects who deleted it; the command does what it is asked."""
    path = place.put(f"{name}.onnx", "good")
    place.scan()
    body = {"name": name, "version": "1"}
    place.client.request("DELETE", "/api/2.0/mlflow/model-versions/delete", json=body).raise_for_status()
    assert place.scan().outcomes == []
    assert asked_for(place, path, name=name).version == "2"


def test_two_versions_of_the_same_bytes_become_one_when_made_at_once(place: Place, name: str) -> None:
    """Another machine registered the same file between our look and our write: the older one stays."""
    path = place.put(f"{name}.onnx", "good")
    place.scan()
    [first] = place.registry.versions(name)
    means = place.means()

    class Blind:
        """A registry that has not seen the other machine's version at the first look."""

        def __init__(self) -> None:
            self.looks = 0

        def versions(self, model: str) -> list[object]:
            self.looks += 1
            return [] if self.looks <= 2 else list(place.registry.versions(model))

    noted = model_files.get(place.engine, str(path))
    assert noted is not None
    other = replace(noted, state=State.CHANGING, version=None)
    blind = replace(means, registry=Blind())  # type: ignore[arg-type]
    done = register(Request(candidate=Candidate(path, path.parent), file=other, said={}), blind)
    assert done.version == first.ref.version
    assert versions(place, name) == ["1"]
