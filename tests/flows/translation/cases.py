"""The parity suite: every generated model, by family."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.flows.translation import sequences, vision, zoos
from tests.flows.translation.parity import Case, quiet

_STARTS = torch.Generator().manual_seed(11)


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=_STARTS)


def _whole(high: int, *shape: int, low: int = 0) -> Tensor:
    return torch.randint(low, high, shape, generator=_STARTS, dtype=torch.int32)


def _image(channels: int, height: int, width: int, batch: int = 1) -> Tensor:
    return _noise(batch, channels, height, width)


def _palettised(model: Any) -> Any:
    from coremltools.optimize import coreml as compression

    config = compression.OpPalettizerConfig(mode="unique")
    return compression.palettize_weights(model, compression.OptimizationConfig(global_config=config))


def _few_values(module: nn.Module, count: int = 12) -> nn.Module:
    """Weights of few different values, which a palette keeps exactly."""
    for part in module.parameters():
        if part.dim() > 1:
            levels = torch.linspace(-0.5, 0.5, count).half().float()
            part.data = levels[torch.randint(0, count, part.shape)]
    return module


def _quantised(model: Any) -> Any:
    from coremltools.optimize import coreml as compression

    config = compression.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=16)
    return compression.linear_quantize_weights(model, compression.OptimizationConfig(global_config=config))


def _on_grid(module: nn.Module) -> nn.Module:
    """Weights on the 8-bit grid of each row, which linear quantisation keeps but for rounding."""
    for part in module.parameters():
        if part.dim() > 1:
            steps = torch.randint(-127, 128, part.shape).float()
            steps[:, 0] = 127
            part.data = steps / 128
    return module


def _pruned(model: Any) -> Any:
    from coremltools.optimize import coreml as compression

    config = compression.OpThresholdPrunerConfig(threshold=0.01, minimum_sparsity_percentile=0.3)
    return compression.prune_weights(model, compression.OptimizationConfig(global_config=config))


def _sparse(module: nn.Module) -> nn.Module:
    for part in module.parameters():
        if part.dim() > 1:
            part.data = part.data * (part.data.abs() > 0.15)
    return module


def _compressible() -> nn.Module:
    body = [nn.Conv2d(4, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(16 * 16, 8))


def _flexible(*dimensions: Any) -> Any:
    """A shape for coremltools; a pair is a range of sizes."""
    import coremltools as ct

    return ct.Shape([ct.RangeDim(*one) if isinstance(one, tuple) else one for one in dimensions])


def _newest() -> dict[str, Any]:
    import coremltools as ct

    return {"minimum_deployment_target": ct.target.iOS18}


def _vision() -> list[Case]:
    return [
        Case("lenet", "convolutional", vision.lenet, (_image(1, 16, 16),)),
        Case("resnet", "convolutional", vision.resnet, (_image(3, 32, 32),)),
        Case("mobilenet", "convolutional", vision.mobilenet, (_image(3, 16, 16),)),
        Case("densenet", "convolutional", vision.Dense, (_image(4, 9, 7, 2),)),
        Case("volume", "convolutional", vision.volume, (_noise(1, 2, 4, 4, 4),)),
        Case("unet", "encoder-decoder", vision.UNet, (_image(3, 16, 16),)),
        Case("upscaler", "encoder-decoder", vision.Upscaler, (_image(3, 6, 5),)),
        Case("resizes", "resizing", vision.Resizes, (_image(2, 6, 8),)),
        Case("newer resizes", "resizing", vision.NewerResizes, (_image(2, 6, 8),), options=_newest()),
        Case("warped", "resizing", vision.Warped, (_image(2, 7, 8), _noise(1, 4, 5, 2) * 0.7)),
        Case("pools", "pooling", vision.Pools, (_image(3, 12, 10),)),
        Case("pools 1d 3d", "pooling", vision.PoolsOneAndThree, (_noise(2, 3, 11), _noise(1, 2, 6, 7, 5))),
        Case("norms", "normalisation", vision.Norms, (_image(8, 6, 5, 2),)),
        Case("padded", "padding", vision.Padded, (_image(2, 5, 6),)),
    ]


def _sequences() -> list[Case]:
    steps = (_noise(2, 6, 5),)
    return [
        Case("mlp", "perceptron", sequences.mlp, (_noise(4, 8),)),
        Case("normed mlp", "perceptron", sequences.normed_mlp, (_noise(4, 6),)),
        Case("two towers", "perceptron", sequences.TwoTowers, (_noise(3, 6), _noise(3, 4))),
        Case("lstm", "recurrent", partial(sequences.Lstm, 1, False), steps),
        Case("lstm no bias", "recurrent", partial(sequences.Lstm, 1, False, False), steps),
        Case("lstm bidirectional", "recurrent", partial(sequences.Lstm, 1, True), steps),
        Case("lstm layers", "recurrent", partial(sequences.Lstm, 2, True), steps),
        Case(
            "lstm state",
            "recurrent",
            sequences.LstmWithState,
            (_noise(4, 2, 5), _noise(1, 2, 6), _noise(1, 2, 6)),
        ),
        Case("gru", "recurrent", partial(sequences.Gru, 1, False), steps),
        Case("gru layers", "recurrent", partial(sequences.Gru, 2, True), steps),
        Case("elman", "recurrent", sequences.Elman, steps),
        Case("encoder", "transformer", sequences.Encoder, (_whole(50, 2, 6),)),
        Case(
            "encoder fused",
            "transformer",
            partial(sequences.Encoder, True),
            (_whole(50, 2, 6),),
            options=_newest(),
        ),
        Case("causal", "transformer", sequences.CausalAttention, (_noise(2, 6, 16),)),
        Case("text", "convolution over time", sequences.TextConvolution, (_whole(30, 2, 7),)),
        Case("wavenet", "convolution over time", sequences.Separated, (_noise(1, 4, 10),)),
    ]


def _zoos() -> list[Case]:
    pair = (_noise(2, 3, 4), _noise(2, 3, 4))
    return [
        # Not at fp16: floor, ceil and the like jump where rounding moves a value over an edge.
        Case("arithmetic", "elementwise", zoos.Arithmetic, pair, half=False),
        Case("choices", "elementwise", zoos.Choices, pair, half=False),
        Case(
            "integers", "elementwise", zoos.Integers, (_whole(9, 2, 5, low=-9), _whole(9, 2, 5)), half=False
        ),
        Case("activations", "activation", zoos.Activations, (_noise(2, 4, 6),)),
        Case("reductions", "reduction", zoos.Reductions, (_noise(2, 4, 6),)),
        Case("orders", "reduction", zoos.Orders, (_noise(2, 4, 6),)),
        Case("selections", "selection", zoos.Selections, (_noise(2, 4, 6), _whole(6, 2, 4, 3))),
        Case("writes", "selection", zoos.Writes, (_noise(2, 6), _whole(6, 2, 1), _noise(2, 1))),
        Case("shapes", "shape", zoos.Shapes, (_noise(2, 4, 6),)),
        Case("products", "product", zoos.Products, (_noise(2, 4, 6), _noise(2, 5, 6))),
    ]


def _compressed() -> list[Case]:
    image = (_image(4, 6, 6),)
    newest = _newest()
    return [
        Case(
            "palette", "compressed weights", lambda: _few_values(_compressible()), image, compress=_palettised
        ),
        Case(
            "palette ios18",
            "compressed weights",
            lambda: _few_values(_compressible()),
            image,
            compress=_palettised,
            options=newest,
        ),
        Case(
            "linear 8 bit",
            "compressed weights",
            lambda: _on_grid(_compressible()),
            image,
            compress=_quantised,
        ),
        Case(
            "linear ios18",
            "compressed weights",
            lambda: _on_grid(_compressible()),
            image,
            compress=_quantised,
            options=newest,
        ),
        Case("sparse", "compressed weights", lambda: _sparse(_compressible()), image, compress=_pruned),
        Case(
            "sparse ios18",
            "compressed weights",
            lambda: _sparse(_compressible()),
            image,
            compress=_pruned,
            options=newest,
        ),
    ]


def _dynamic() -> list[Case]:
    fully = nn.Sequential
    return [
        Case(
            "any batch",
            "flexible shapes",
            sequences.mlp,
            (_noise(4, 8),),
            shapes={0: _flexible((1, 64), 8)},
            more=((_noise(1, 8),), (_noise(33, 8),)),
        ),
        Case(
            "any image size",
            "flexible shapes",
            lambda: fully(
                nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(6, 2, 1)
            ),
            (_image(3, 16, 16),),
            shapes={0: _flexible(1, 3, (8, 64), (8, 64))},
            more=((_image(3, 24, 10),),),
        ),
        Case(
            "any length",
            "flexible shapes",
            partial(sequences.Lstm, 1, True),
            (_noise(2, 6, 5),),
            shapes={0: _flexible(2, (1, 30), 5)},
            more=((_noise(2, 11, 5),), (_noise(2, 1, 5),)),
        ),
        Case(
            "any gru length",
            "flexible shapes",
            partial(sequences.Gru, 1, False),
            (_noise(2, 6, 5),),
            shapes={0: _flexible(2, (2, 30), 5)},
            more=((_noise(2, 11, 5),),),
        ),
    ]


with quiet():
    CASES = {case.name: case for case in [*_vision(), *_sequences(), *_zoos(), *_compressed(), *_dynamic()]}
