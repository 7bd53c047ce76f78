"""P14: a promotion as a person types it, through Prefect, the validation, MLflow and serving."""

from itertools import cycle, islice
from pathlib import Path

from benchmarks.row import Row, within
from benchmarks.stack import raised


def promotion(folder: Path, *, repeats: int) -> list[Row]:
    """The command returns when every worker answers with the version, which is when the watch begins."""
    seconds = []
    with raised(folder / "promotion") as stack:
        model = stack.champion("onnx:1", "onnx:2", prefix="promotion")
        for version in islice(cycle(("2", "1")), repeats):
            seconds.append(
                stack.run_seconds("promote", model.name, version, "--strategy", "direct", "--wait")
            )
            if stack.answering(model) != version:
                raise RuntimeError(f"version {version} was promoted and {stack.answering(model)} answers")
    told = ", ".join(f"{each:.1f}" for each in seconds)
    what = "promote --strategy direct --wait, worst"
    return [within("P14", what, max(seconds), 30.0, "s", f"{repeats} repeats: {told} s")]
