"""Torch modules of the families that were converted to Core ML's layer networks, with their inputs.

A case is one of the program suite's kind; `network_parity` converts, translates and measures it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.flows.translation import sequences
from tests.flows.translation.parity import Case


class Function(nn.Module):
    """A module out of a function of tensors."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._function(*inputs)


class First(nn.Module):
    """Only the first of a module's results, such as a recurrent layer's outputs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor:
        first: Tensor = self.module(*inputs)[0]
        return first


class Residual(nn.Module):
    """x + f(x), as in a residual network's block."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.inner(x))


class Gated(nn.Module):
    """Squeeze-and-excitation: channels weighed by a small network over their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, 2, 1),
            nn.SiLU(),
            nn.Conv2d(2, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        weighed: Tensor = x * self.gate(x)
        return weighed


class Dense(nn.Module):
    """Concatenates what it adds to what it got, as DenseNet does."""

    def __init__(self, channels: int, grown: int) -> None:
        super().__init__()
        self.added = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, grown, 3, padding=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.added(x)], dim=1)


class UNet(nn.Module):
    """Down, up and across: a deconvolution and a crop meet their counterpart."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, padding=1)
        self.bottom = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        across = functional.relu(self.down(x))
        up = self.up(functional.relu(self.bottom(across)))
        result: Tensor = self.out(torch.cat([across, up], dim=1))
        return result


class Attention(nn.Module):
    """One encoder block written out, as exporters see it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = (int(size) for size in x.shape)
        parts = self.qkv(self.before(x)).reshape(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        x = x + self.out((weights @ value).transpose(1, 2).reshape(batch, length, width))
        result: Tensor = x + self.mlp(self.after(x))
        return result


class Embedded(nn.Module):
    """Tokens to a sequence to one vector: embedding, LSTM, last state, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(20, 6), nn.LSTM(6, 8, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        _, (last, _) = self.lstm(self.embedding(tokens))
        result: Tensor = self.out(last[-1])
        return result


_INPUTS = torch.Generator().manual_seed(23)


def _lively(module: nn.Module) -> nn.Module:
    """Batch statistics as training leaves them: neither zero nor one."""
    for one in module.modules():
        if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            assert one.running_mean is not None
            assert one.running_var is not None
            one.running_mean.normal_(0, 0.2)
            one.running_var.uniform_(0.5, 1.5)
    return module


def _case(family: str, name: str, make: Callable[[], nn.Module], *shapes: tuple[int, ...]) -> Case:
    inputs = tuple(torch.randn(shape, generator=_INPUTS) for shape in shapes)
    return Case(name, family, lambda: _lively(make()), inputs)


def _tokens(family: str, name: str, make: Callable[[], nn.Module], kinds: int, *shape: int) -> Case:
    inputs = torch.randint(0, kinds, shape, generator=_INPUTS, dtype=torch.int32)
    return Case(name, family, make, (inputs,))


_IMAGE = [(1, 3, 12, 10)]
_BATCH = [(2, 4, 9, 7)]


def _flexible(*dimensions: int | tuple[int, int]) -> Any:
    """A shape for coremltools; a pair is a range of sizes."""
    import coremltools as ct

    return ct.Shape([ct.RangeDim(*one) if isinstance(one, tuple) else one for one in dimensions])


def _f(function: Callable[..., Tensor]) -> Callable[[], nn.Module]:
    return lambda: Function(function)


_CNN = [
    _case(
        "cnn",
        "lenet",
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 5, padding=2),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(4, 6, 3),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(54, 10),
            nn.Softmax(-1),
        ),
        (2, 1, 16, 16),
    ),
    _case(
        "cnn",
        "vgg",
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(8, 5),
        ),
        *_IMAGE,
    ),
    _case(
        "cnn",
        "resnet",
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            Residual(
                nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1)
            ),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        ),
        *_IMAGE,
    ),
    _case(
        "cnn",
        "mobilenet",
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
            nn.BatchNorm2d(8),
            nn.Hardswish(),
            Gated(8),
        ),
        *_IMAGE,
    ),
    _case("cnn", "densenet", lambda: nn.Sequential(Dense(4, 3), Dense(7, 3), nn.AvgPool2d(2)), *_BATCH),
    _case("cnn", "unet", UNet, (1, 3, 8, 8)),
]
_CONVOLUTION = [
    _case("convolution", "dilated", lambda: nn.Conv2d(4, 6, 3, dilation=2, padding=2), *_BATCH),
    _case("convolution", "grouped", lambda: nn.Conv2d(4, 6, 3, stride=(2, 1), groups=2), *_BATCH),
    _case("convolution", "same", lambda: nn.Conv2d(4, 5, (3, 4), padding="same"), *_BATCH),
    _case("convolution", "one_axis", lambda: nn.Conv1d(4, 5, 3, stride=2, padding=1), (2, 4, 11)),
    _case("convolution", "three_axes", lambda: nn.Conv3d(2, 3, 3, padding=1), (1, 2, 5, 6, 7)),
    _case("convolution", "transposed", lambda: nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1), *_BATCH),
    _case(
        "convolution",
        "transposed_grown",
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        *_BATCH,
    ),
    _case("convolution", "transposed_one_axis", lambda: nn.ConvTranspose1d(4, 3, 4, stride=2), (2, 4, 6)),
    _case(
        "convolution", "transposed_three_axes", lambda: nn.ConvTranspose3d(2, 3, 2, stride=2), (1, 2, 3, 4, 5)
    ),
    _case(
        "convolution",
        "computed_weights",
        _f(lambda x, w: functional.conv2d(x, w)),
        (1, 4, 6, 6),
        (5, 4, 3, 3),
    ),
]
_MLP = [
    _case(
        "mlp",
        "regressor",
        lambda: nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 8), nn.ELU(), nn.Linear(8, 1)),
        (3, 7),
    ),
    _case(
        "mlp",
        "classifier",
        lambda: nn.Sequential(
            nn.Linear(7, 9), nn.BatchNorm1d(9), nn.LeakyReLU(0.2), nn.Linear(9, 4), nn.Softmax(1)
        ),
        (2, 7),
    ),
    _case("mlp", "per_step", lambda: nn.Sequential(nn.Linear(5, 6, bias=False), nn.Sigmoid()), (2, 3, 5)),
    _case("mlp", "rank_4", lambda: nn.Linear(5, 6), (2, 2, 3, 5)),
    _case("mlp", "bilinear", _f(lambda x, y: torch.einsum("bij,bjk->bik", x, y)), (2, 3, 4), (2, 4, 5)),
    _case("mlp", "matmul_broadcast", _f(lambda x, y: torch.matmul(x, y)), (2, 3, 4, 5), (5, 6)),
]
_RECURRENT = [
    _case("recurrent", "lstm", lambda: First(nn.LSTM(5, 7, batch_first=True)), (2, 4, 5)),
    _case("recurrent", "lstm_time_first", lambda: First(nn.LSTM(5, 7, bias=False)), (4, 2, 5)),
    _case(
        "recurrent",
        "lstm_both_directions",
        lambda: First(nn.LSTM(5, 7, num_layers=2, batch_first=True, bidirectional=True)),
        (2, 4, 5),
    ),
    _case("recurrent", "gru", lambda: First(nn.GRU(5, 7, batch_first=True)), (2, 4, 5)),
    _case("recurrent", "gru_two_layers", lambda: First(nn.GRU(5, 6, num_layers=2)), (4, 1, 5)),
    _case("recurrent", "rnn_tanh", lambda: First(nn.RNN(5, 7, batch_first=True)), (2, 4, 5)),
    _case("recurrent", "rnn_relu", lambda: First(nn.RNN(5, 7, nonlinearity="relu")), (4, 1, 5)),
    _tokens("recurrent", "embedded_lstm", Embedded, 20, 2, 5),
]
_TRANSFORMER = [
    _case("transformer", "encoder_block", lambda: Attention(8, 2), (2, 5, 8)),
    _case("transformer", "two_blocks", lambda: nn.Sequential(Attention(8, 4), Attention(8, 2)), (1, 6, 8)),
    _tokens(
        "transformer", "embedded_block", lambda: nn.Sequential(nn.Embedding(30, 8), Attention(8, 2)), 30, 1, 7
    ),
]
_NORMALIZATION = [
    _case("normalization", "batch_1d", lambda: nn.BatchNorm1d(4), (3, 4, 6)),
    _case("normalization", "batch_3d", lambda: nn.BatchNorm3d(2), (2, 2, 3, 4, 5)),
    _case("normalization", "instance", lambda: nn.InstanceNorm2d(4, affine=True), *_BATCH),
    _case("normalization", "layer", lambda: nn.LayerNorm(7), (2, 3, 7)),
    _case("normalization", "layer_over_two", lambda: nn.LayerNorm([9, 7]), *_BATCH),
    _case("normalization", "group", lambda: nn.GroupNorm(2, 4), *_BATCH),
    _case("normalization", "length", _f(lambda x: functional.normalize(x, dim=1)), (2, 6)),
]
_POOLING = [
    _case("pooling", "maximum", lambda: nn.MaxPool2d(3, stride=2, padding=1), *_BATCH),
    _case("pooling", "maximum_ceil", lambda: nn.MaxPool2d(2, stride=2, ceil_mode=True), *_BATCH),
    _case("pooling", "average", lambda: nn.AvgPool2d(3, stride=2, padding=1), *_BATCH),
    _case(
        "pooling", "average_without_padding", lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), *_BATCH
    ),
    _case("pooling", "average_1d", lambda: nn.AvgPool1d(2), (2, 3, 8)),
    _case("pooling", "maximum_1d", lambda: nn.MaxPool1d(3, 2), (2, 3, 8)),
    _case("pooling", "maximum_3d", lambda: nn.MaxPool3d(2), (1, 2, 4, 6, 4)),
    _case("pooling", "average_3d", lambda: nn.AvgPool3d(2), (1, 2, 4, 6, 4)),
    _case("pooling", "global_maximum", lambda: nn.AdaptiveMaxPool2d(1), *_BATCH),
    _case("pooling", "adaptive", lambda: nn.AdaptiveAvgPool2d((4, 5)), (1, 2, 8, 10)),
]
_RESIZE = [
    _case("resize", "nearest", lambda: nn.Upsample(scale_factor=2, mode="nearest"), *_BATCH),
    _case("resize", "bilinear", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), *_BATCH),
    _case(
        "resize",
        "bilinear_corners",
        lambda: nn.Upsample(scale_factor=3, mode="bilinear", align_corners=True),
        *_BATCH,
    ),
    _case(
        "resize",
        "bilinear_to_size",
        _f(lambda x: functional.interpolate(x, size=(13, 11), mode="bilinear", align_corners=True)),
        *_BATCH,
    ),
    _case("resize", "pixel_shuffle", lambda: nn.PixelShuffle(2), *_BATCH),
    _case("resize", "reflection", lambda: nn.ReflectionPad2d((1, 2, 2, 1)), *_BATCH),
    _case("resize", "replication", lambda: nn.ReplicationPad2d((1, 2, 0, 1)), *_BATCH),
    _case("resize", "constant", lambda: nn.ConstantPad2d((1, 2, 0, 1), 0.5), *_BATCH),
    _case("resize", "constant_1d", _f(lambda x: functional.pad(x, (1, 2))), (2, 3, 5)),
]
_SHAPE = [
    _case("shape", "reshape", _f(lambda x: x.reshape(2, 6, 6)), (2, 4, 9)),
    _case("shape", "flatten", _f(lambda x: x.flatten(1)), *_BATCH),
    _case("shape", "permute", _f(lambda x: x.permute(0, 2, 3, 1)), *_BATCH),
    _case("shape", "squeeze", _f(lambda x: x.squeeze(1).unsqueeze(-1)), (2, 1, 5)),
    _case("shape", "concat", _f(lambda x, y: torch.cat([x, y], 1)), (2, 3, 4), (2, 5, 4)),
    _case("shape", "stack", _f(lambda x, y: torch.stack([x, y], 1)), (2, 3), (2, 3)),
    _case("shape", "chunk", _f(lambda x: torch.chunk(x, 3, 1)[1]), (2, 6, 4)),
    _case("shape", "split", _f(lambda x: torch.split(x, [1, 5], 1)[1]), (2, 6, 4)),
    _case("shape", "slice", _f(lambda x: x[:, 1:3, ::2]), (2, 4, 9)),
    _case("shape", "slice_last", _f(lambda x: x[:, -1]), (2, 4, 9)),
    _case("shape", "gather", _f(lambda x: x[:, [2, 0, 1]]), (2, 4, 9)),
    _case("shape", "index_select", _f(lambda x: torch.index_select(x, 1, torch.tensor([3, 1]))), (2, 4, 9)),
    _case("shape", "repeat", _f(lambda x: x.repeat(1, 2, 3)), (2, 3, 4)),
    _case("shape", "expand", _f(lambda x: x.expand(2, 3, 4)), (2, 1, 4)),
    _case("shape", "flip", _f(lambda x: torch.flip(x, [1])), (2, 3, 4)),
    _case("shape", "triangle", _f(lambda x: torch.tril(x)), (2, 4, 4)),
]
_ACTIVATION = [
    _case("activation", name, make, (2, 3, 4, 5))
    for name, make in (
        ("relu6", nn.ReLU6),
        ("elu", lambda: nn.ELU(0.7)),
        ("leaky", lambda: nn.LeakyReLU(0.1)),
        ("prelu", lambda: nn.PReLU(3)),
        ("softplus", nn.Softplus),
        ("softsign", nn.Softsign),
        ("gelu", nn.GELU),
        ("gelu_tanh", lambda: nn.GELU("tanh")),
        ("silu", nn.SiLU),
        ("hardsigmoid", nn.Hardsigmoid),
        ("hardswish", nn.Hardswish),
        ("log_softmax", lambda: nn.LogSoftmax(1)),
        ("softmax", lambda: nn.Softmax(1)),
    )
]
_ELEMENTWISE = [
    _case("elementwise", "arithmetic", _f(lambda x, y: (x * y - x) / (y.abs() + 1)), (2, 3, 4), (1, 3, 1)),
    _case("elementwise", "powers", _f(lambda x: torch.sqrt(x.abs() + 1) ** 3 - x**2), (2, 5)),
    _case("elementwise", "exponents", _f(lambda x: torch.log(torch.exp(x) + 1)), (2, 5)),
    _case("elementwise", "angles", _f(lambda x: torch.sin(x) * torch.cos(x) + torch.atan(x)), (2, 5)),
    _case("elementwise", "rounding", _f(lambda x: torch.floor(x) + torch.ceil(x) * torch.sign(x)), (2, 5)),
    _case("elementwise", "comparison", _f(lambda x, y: torch.where(x > y, x, y * 2)), (2, 5), (2, 5)),
    _case("elementwise", "extremes", _f(lambda x, y: x.maximum(y) - x.minimum(y)), (2, 5), (5,)),
    _case("elementwise", "clamp", _f(lambda x: torch.clamp(x, -0.5, 0.7)), (2, 5)),
    _case("elementwise", "erf", _f(lambda x: torch.erf(x)), (2, 5)),
]
_REDUCTION = [
    _case("reduction", "mean", _f(lambda x: x.mean((2, 3))), *_BATCH),
    _case("reduction", "sum", _f(lambda x: x.sum(1, keepdim=True)), (2, 4, 5)),
    _case("reduction", "maximum", _f(lambda x: x.amax(-1)), (2, 4, 5)),
    _case("reduction", "argmax", _f(lambda x: x.argmax(1).float()), (2, 4, 5)),
    _case("reduction", "top", _f(lambda x: torch.topk(x, 2, dim=1)[0]), (2, 4, 5)),
    _case("reduction", "norm", _f(lambda x: torch.norm(x, dim=1)), (2, 4, 5)),
    _case("reduction", "cumulative", _f(lambda x: torch.cumsum(x, 1)), (2, 4, 5)),
    _case("reduction", "logsumexp", _f(lambda x: torch.logsumexp(x, 1)), (2, 4, 5)),
    _case("reduction", "everything", _f(lambda x: x.mean()), (2, 4, 5)),
]

_FLEXIBLE = [
    Case(
        "any batch",
        "flexible shapes",
        sequences.mlp,
        (torch.randn((4, 8), generator=_INPUTS),),
        shapes={0: _flexible((1, 64), 8)},
        more=((torch.randn((1, 8), generator=_INPUTS),), (torch.randn((33, 8), generator=_INPUTS),)),
    ),
    Case(
        "any image size",
        "flexible shapes",
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.AvgPool2d(2, 2, 0)
        ),
        (torch.randn((1, 3, 16, 16), generator=_INPUTS),),
        shapes={0: _flexible(1, 3, (8, 64), (8, 64))},
        more=((torch.randn((1, 3, 24, 10), generator=_INPUTS),),),
    ),
    *(
        Case(
            f"any length of {name}",
            "flexible shapes",
            make,
            (torch.randn((2, 6, 5), generator=_INPUTS),),
            shapes={0: _flexible(2, (2, 30), 5)},
            more=((torch.randn((2, 11, 5), generator=_INPUTS),),),
        )
        for name, make in (
            ("lstm", partial(sequences.Lstm, 1, True)),
            ("gru", partial(sequences.Gru, 1, False)),
        )
    ),
]

_ALL = (
    *_CNN,
    *_CONVOLUTION,
    *_MLP,
    *_RECURRENT,
    *_TRANSFORMER,
    *_NORMALIZATION,
    *_POOLING,
    *_RESIZE,
    *_SHAPE,
    *_ACTIVATION,
    *_ELEMENTWISE,
    *_REDUCTION,
    *_FLEXIBLE,
)
NETWORK_CASES = {f"{case.family} {case.name}": case for case in _ALL}
