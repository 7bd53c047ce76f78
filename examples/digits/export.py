"""Writes the digits network as a model file of every format, each with a side file, ready to be registered.

    python export.py --folder models --register

The same network in four formats: ONNX, TorchScript, torch.export and Core ML. With `--register` each file
goes through `signalbox register`; in one of the configured model folders, the next scan takes them by itself.
"""

import argparse
import logging
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from train import INPUT, OUTPUT, SEED, DigitNet, Digits, accuracy, load, to_onnx, to_torchscript, train

EVALUATION_FILE = "digits.evaluation.npz"
LARGEST_BATCH = 512
SIDE_FILE = """\
name: {name}
model_type: classifier
description: |
  Two convolutions and a linear head; reads scans of handwritten digits, 8 by 8 pixels from 0 to 1.
author: Signalbox examples
owner: examples
training_dataset: UCI digits
metrics: {{accuracy: {accuracy:.4f}}}
params: {{epochs: {epochs}, seed: {seed}}}
tags: {{exported_as: {suffix}}}
evaluation_set: {evaluation}
labels: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
licence: CC-BY-4.0
sibling: {name} of {epochs} epochs
"""


def write_onnx(net: DigitNet, path: Path) -> None:
    onnx.save(to_onnx(net), path)


def write_torchscript(net: DigitNet, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        to_torchscript(net).save(str(path))


def write_exported(net: DigitNet, path: Path) -> None:
    batch = torch.export.Dim("batch", max=LARGEST_BATCH)
    program = torch.export.export(net, (torch.zeros(2, 1, 8, 8),), dynamic_shapes={"image": {0: batch}})
    torch.export.save(program, path)


def write_core_ml(net: DigitNet, path: Path) -> None:
    """A program in single precision, as the other three are; phones would rather have half."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    import coremltools

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(net, torch.zeros(1, 1, 8, 8))
        batch = coremltools.RangeDim(1, LARGEST_BATCH, default=1)
        model = coremltools.convert(
            traced,
            inputs=[coremltools.TensorType(INPUT, shape=(batch, 1, 8, 8))],
            outputs=[coremltools.TensorType(OUTPUT)],
            convert_to="mlprogram",
            compute_precision=coremltools.precision.FLOAT32,
        )
    shutil.rmtree(path, ignore_errors=True)
    model.save(str(path))


WRITERS: dict[str, Callable[[DigitNet, Path], None]] = {
    ".onnx": write_onnx,
    ".pt": write_torchscript,
    ".pt2": write_exported,
    ".mlpackage": write_core_ml,
}


def export(folder: Path, name: str, net: DigitNet, digits: Digits, epochs: int) -> list[Path]:
    """The side file goes first: a scan that comes between must not find a model that nobody describes."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"input:{INPUT}": digits.test_images, "labels": digits.test_labels}
    np.savez_compressed(folder / EVALUATION_FILE, **arrays)
    paths = []
    for suffix, write in WRITERS.items():
        path = folder / f"digits{suffix}"
        path.with_name(f"{path.name}.model.yaml").write_text(
            SIDE_FILE.format(
                name=name,
                accuracy=accuracy(net, digits),
                epochs=epochs,
                seed=SEED,
                suffix=suffix.removeprefix("."),
                evaluation=EVALUATION_FILE,
            )
        )
        write(net, path)
        paths.append(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description="Export the digits example in four formats.")
    parser.add_argument("--folder", type=Path, default=Path("models"), help="where to put the files")
    parser.add_argument("--model-name", default="digits", help="registered model to add versions to")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--register", action="store_true", help="run `signalbox register` for each file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    digits = load()
    net = train(digits, arguments.epochs)
    for path in export(arguments.folder, arguments.model_name, net, digits, arguments.epochs):
        print(f"wrote {path}", flush=True)
        if arguments.register:
            command = [sys.executable, "-P", "-m", "flows.cli.main", "register", str(path)]
            subprocess.run([*command, "--name", arguments.model_name], check=True)


if __name__ == "__main__":
    main()
