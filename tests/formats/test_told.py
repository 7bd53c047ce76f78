"""Free key-value pairs: understood where they mean something, kept where they do not, never evaluated."""

import pytest

from serving.formats.told import MAX_LABELS, MAX_TEXT, Told, pairs_of, understood


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        pytest.param('["cat", "dog"]', ("cat", "dog"), id="JSON list"),
        pytest.param("{0: 'cat', 1: 'dog'}", ("cat", "dog"), id="Python dict of index"),
        pytest.param('{"1": "dog", "0": "cat"}', ("cat", "dog"), id="JSON dict of index, unordered"),
        pytest.param('{"dog": 1, "cat": 0}', ("cat", "dog"), id="index by name"),
        pytest.param("cat\n# a remark\n\ndog\n", ("cat", "dog"), id="lines"),
        pytest.param("cat, dog", ("cat", "dog"), id="commas"),
        pytest.param("[0, 1]", ("0", "1"), id="numbers"),
        pytest.param("", (), id="nothing"),
        pytest.param("[cat, dog", ("[cat", "dog"), id="no list after all"),
        pytest.param("cat" * 100, (("cat" * 100)[:250],), id="too long"),
        pytest.param("__import__('os').system('true')", ("__import__('os').system('true')",), id="code"),
    ],
)
def test_labels_are_read_when_written_in_any_form(text: str, labels: tuple[str, ...]) -> None:
    assert understood({"names": text}).labels == labels


def test_pairs_become_fields_when_their_keys_are_known() -> None:
    """Keys of several exporters; case, spaces and dashes do not matter; the rest is kept."""
    told = understood(
        {
            "Description": "Reads digits.",
            "model_author": "Ann",
            "License": "MIT",
            "Training-Dataset": "UCI",
            "requirements": "torch==2.13\nnumpy\n",
            "accuracy": "0.9",
            "metric.top5": "0.99",
            "metrics": "{'loss': 0.1, 'epochs': 'many', 'flag': True}",
            "stride": "32",
        }
    )
    assert told == Told(
        description="Reads digits.",
        author="Ann",
        licence="MIT",
        training_dataset="UCI",
        metrics={"loss": 0.1, "accuracy": 0.9, "top5": 0.99},
        dependencies=("torch==2.13", "numpy"),
        properties={"stride": "32"},
    )


@pytest.mark.parametrize("text", ["NaN", "inf", "1e999", "high", ""])
def test_metric_stays_text_when_it_is_no_finite_number(text: str) -> None:
    told = understood({"accuracy": text})
    assert told.metrics == {}
    assert told.properties == {"accuracy": text}


def test_text_is_bounded_when_somebody_writes_without_end() -> None:
    """Prose, labels, properties and deep nesting alike."""
    told = understood({"description": "d" * 10**6, "labels": "a," * 10**5, "note": "n" * 10**6})
    assert len(told.description or "") == MAX_TEXT
    assert len(told.labels) == MAX_LABELS
    assert len(told.properties["note"]) == MAX_TEXT
    assert len(understood({str(n): "x" for n in range(10**4)}).properties) == 100
    assert understood({"metrics": "[" * 10**5}).metrics == {}


def test_file_is_many_pairs_when_it_holds_a_json_object() -> None:
    """Otherwise its name is the key; a file of labels or metrics stays one pair whatever it holds."""
    assert pairs_of("config", '{"author": "Ann", "stride": 32, "names": {"0": "cat"}, "none": null}') == {
        "author": "Ann",
        "stride": "32",
        "names": "{'0': 'cat'}",
    }
    assert pairs_of("description", "Reads digits.") == {"description": "Reads digits."}
    assert pairs_of("labels", '{"0": "cat"}') == {"labels": '{"0": "cat"}'}


def test_own_words_win_when_another_says_otherwise() -> None:
    """What is missing is filled in; numbers are joined by name."""
    own = Told(author="Ann", metrics={"accuracy": 0.9}, labels=("cat",))
    other = Told(author="Bob", licence="MIT", metrics={"accuracy": 0.1, "loss": 0.2}, labels=("dog",))
    assert own.or_else(other) == Told(
        author="Ann", licence="MIT", metrics={"accuracy": 0.9, "loss": 0.2}, labels=("cat",)
    )
