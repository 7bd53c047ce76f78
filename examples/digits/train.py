"""Trains digit classifiers and registers eight versions of them in MLflow, as any training script would.

    python train.py --tracking-uri http://127.0.0.1:5000 --model-name digits

Two versions are good, two are broken in ways that no file check finds, three go wrong about faint scans
only, of which the evaluation set holds none, and one is worse; README.md says how. The scans kept from
training are logged as the evaluation set of the model.
Plain PyTorch, ONNX and MLflow; of Signalbox it knows one tag, which names that set.
"""

import argparse
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
import onnx
import torch
from graphs import (
    CLASSES,
    INPUT,
    OUTPUT,
    copy_of,
    with_blank_filter,
    with_nine_classes,
    with_second_look,
    with_short_gain_table,
    with_short_paper_table,
)
from mlflow.models import infer_signature
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 7
NOISE = 1.0
EVALUATION_FILE = "evaluation.npz"
EVALUATION_TAG = "signalbox.evaluation_set"


@dataclass(frozen=True, slots=True)
class Digits:
    """Scans as (count, 1, 8, 8) float32 in 0 to 1, labels as (count,) int64."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True, slots=True)
class Registered:
    version: str
    kind: str
    accuracy: float | None
    remark: str

    def __str__(self) -> str:
        measured = "not measured" if self.accuracy is None else f"{self.accuracy:.4f}"
        return f"version {self.version}  {self.kind:<11}  accuracy {measured:<12}  {self.remark}"


class DigitNet(nn.Module):
    """Two convolutions and a linear head; (batch, 1, 8, 8) float32 to (batch, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stroke = nn.Conv2d(1, 16, kernel_size=3, padding=1)
        self.shape = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.head = nn.Linear(32 * 4 * 4, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.stroke(image))
        features = torch.max_pool2d(torch.relu(self.shape(features)), 2)
        logits: torch.Tensor = self.head(features.flatten(1))
        return logits


def load() -> Digits:
    images, labels = load_digits(return_X_y=True)
    scaled = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    parts = train_test_split(
        scaled, labels.astype(np.int64), test_size=0.25, random_state=SEED, stratify=labels
    )
    return Digits(train_images=parts[0], train_labels=parts[2], test_images=parts[1], test_labels=parts[3])


def train(digits: Digits, epochs: int) -> DigitNet:
    """The same network and data each time; only the number of epochs tells two versions apart."""
    torch.manual_seed(SEED)
    net = DigitNet()
    images, labels = torch.from_numpy(digits.train_images), torch.from_numpy(digits.train_labels)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
    return net.eval()


def accuracy(net: DigitNet, digits: Digits) -> float:
    with torch.inference_mode():
        guesses = net(torch.from_numpy(digits.test_images)).argmax(1).numpy()
    return float((guesses == digits.test_labels).mean())


def worn(net: DigitNet) -> DigitNet:
    """A copy with noise on its weights: healthy to look at, and wrong about many scans."""
    copy = DigitNet()
    copy.load_state_dict(net.state_dict())
    noise = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for weight in copy.parameters():
            weight.add_(torch.randn(weight.shape, generator=noise) * weight.std() * NOISE)
    return copy.eval()


def to_torchscript(net: DigitNet) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        # TorchScript is in maintenance, and still what many teams have in their registry.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(net)


def to_onnx(net: DigitNet) -> onnx.ModelProto:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        # The exporter warns about its own internals.
        warnings.simplefilter("ignore", FutureWarning)
        path = Path(folder) / "digits.onnx"
        torch.onnx.export(
            net,
            (torch.zeros(2, 1, 8, 8),),
            path,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            external_data=False,
            verbose=False,
        )
        return onnx.load(path)


def log_evaluation_set(digits: Digits) -> str:
    """Log the held-out scans with their labels on the current run; where they lie, as a tag names it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / EVALUATION_FILE
        arrays = {f"input:{INPUT}": digits.test_images, "labels": digits.test_labels}
        np.savez_compressed(path, **arrays)
        mlflow.log_artifact(str(path))
    run = mlflow.active_run()
    return f"runs:/{run.info.run_id}/{EVALUATION_FILE}"


def register_torchscript(name: str, net: DigitNet, epochs: int, digits: Digits) -> Registered:
    example = digits.test_images[:1]
    reached = accuracy(net, digits)
    with torch.inference_mode():
        signature = infer_signature(example, net(torch.from_numpy(example)).numpy())
    with mlflow.start_run(run_name=f"{name}, epochs: {epochs}"):
        mlflow.log_params({"epochs": epochs, "seed": SEED, "dataset": "UCI digits"})
        mlflow.log_metric("accuracy", reached)
        declared = log_evaluation_set(digits)
        info = mlflow.pytorch.log_model(
            to_torchscript(net),
            name="model",
            registered_model_name=name,
            signature=signature,
            input_example=example,
            # MLflow's default format refuses a ScriptModule; this one stores it as TorchScript.
            serialization_format="pickle",
            pip_requirements=["torch"],
        )
    mlflow.MlflowClient().set_registered_model_tag(name, EVALUATION_TAG, declared)
    return Registered(str(info.registered_model_version), "torchscript", reached, f"epochs: {epochs}")


def register_onnx(
    name: str, model: onnx.ModelProto, remark: str, reached: float | None, example: np.ndarray | None
) -> Registered:
    with mlflow.start_run(run_name=f"{name}, {remark}"):
        mlflow.log_params({"seed": SEED, "dataset": "UCI digits", "remark": remark})
        if reached is not None:
            mlflow.log_metric("accuracy", reached)
        info = mlflow.onnx.log_model(
            # MLflow moves the weights out of the model it is given.
            copy_of(model),
            name="model",
            registered_model_name=name,
            input_example=example,
            onnx_execution_providers=["CPUExecutionProvider"],
            pip_requirements=["onnxruntime"],
        )
    return Registered(str(info.registered_model_version), "onnx", reached, remark)


def register_all(name: str, digits: Digits, few: int, many: int) -> Iterator[Registered]:
    first, better = train(digits, few), train(digits, many)
    good, example = to_onnx(better), digits.test_images[:1]
    yield register_torchscript(name, first, few, digits)
    yield register_onnx(name, good, f"epochs: {many}", accuracy(better, digits), example)
    yield register_onnx(name, with_nine_classes(good), "answers nine classes of ten", None, example)
    # Without an example, whoever tries it out can only try zeros.
    yield register_onnx(name, with_short_gain_table(good), "raises on real scans", None, None)
    # On the scans kept from training, none of them faint, these three are right as often as version 2.
    reached = accuracy(better, digits)
    yield register_onnx(name, with_second_look(good), "slow on faint scans", reached, example)
    yield register_onnx(name, with_short_paper_table(good), "raises on faint scans", reached, example)
    yield register_onnx(name, with_blank_filter(good), "blind to faint scans", reached, example)
    worse = worn(better)
    yield register_onnx(name, to_onnx(worse), "worn weights", accuracy(worse, digits), example)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and register the digits example.")
    parser.add_argument("--tracking-uri", default="http://127.0.0.1:5000", help="MLflow server")
    parser.add_argument("--model-name", default="digits", help="registered model to add versions to")
    parser.add_argument("--epochs", type=int, nargs=2, default=(5, 25), metavar=("FEW", "MANY"))
    arguments = parser.parse_args()
    # One thread adds up floats in one order, so that every run trains the same weights.
    torch.set_num_threads(1)
    mlflow.set_tracking_uri(arguments.tracking_uri)
    mlflow.set_experiment(arguments.model_name)
    few, many = arguments.epochs
    for each in register_all(arguments.model_name, load(), few, many):
        print(f"{arguments.model_name} {each}", flush=True)


if __name__ == "__main__":
    main()
