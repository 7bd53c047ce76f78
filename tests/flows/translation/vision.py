"""Generated image models for the parity suite: small versions of the usual architectures."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Two convolutions around a shortcut, optionally grouped and with a stride."""

    def __init__(self, channels: int, wider: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, wider, 3, stride, 1, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(wider)
        self.second = nn.Conv2d(wider, wider, 3, 1, 1, groups=groups, bias=False)
        self.last = nn.BatchNorm2d(wider)
        self.shortcut = nn.Conv2d(channels, wider, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.last(self.second(F.relu(self.norm(self.first(x)))))
        return F.relu(inner + self.shortcut(x))


def randomised(module: nn.Module) -> nn.Module:
    """Batch norms with statistics of a trained model's kind; fresh ones change nothing."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(part.running_mean, std=0.2)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)
    return module


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 4, 10),
        nn.LogSoftmax(-1),
    )


def resnet() -> nn.Module:
    stem = [nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    blocks = [Residual(8, 8), Residual(8, 16, 2), Residual(16, 16, groups=4)]
    return randomised(nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.down = nn.Conv2d(channels, channels // 4, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.up(F.relu(self.down(self.pool(x)))))


class Inverted(nn.Module):
    """MobileNet's block: widen, depthwise, squeeze and excite, narrow."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, wider, 1, bias=False),
            nn.BatchNorm2d(wider),
            nn.Hardswish(),
            nn.Conv2d(wider, wider, 3, 1, 1, groups=wider, bias=False),
            nn.BatchNorm2d(wider),
            nn.Hardswish(),
            SqueezeExcite(wider),
            nn.Conv2d(wider, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = x + self.body(x)
        return answer


def mobilenet() -> nn.Module:
    stem = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 6), nn.Softmax(-1)]
    return randomised(nn.Sequential(*stem, Inverted(8, 16), Inverted(8, 24), *head))


class Dense(nn.Module):
    """DenseNet's concatenations, Inception's branches."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(4, 4, 1)
        self.three = nn.Conv2d(8, 4, (3, 1), padding=(1, 0), dilation=1)
        self.wide = nn.Conv2d(12, 4, 3, padding=2, dilation=2)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.cat([x, self.one(x)], 1)
        second = torch.cat([first, F.elu(self.three(first))], 1)
        return torch.cat([self.pool(second), F.leaky_relu(self.wide(second), 0.1)], 1)


class UNet(nn.Module):
    """Down twice, up twice: once by transposed convolution, once by bilinear resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 12, 3, 2, 1)
        self.deep = nn.Conv2d(12, 16, 3, 2, 1)
        self.up = nn.ConvTranspose2d(16, 12, 2, 2)
        self.merge = nn.Conv2d(24, 8, 3, padding=1)
        self.leave = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        top = F.silu(self.enter(x))
        middle = F.silu(self.down(top))
        bottom = F.silu(self.deep(middle))
        middle = F.silu(self.merge(torch.cat([self.up(bottom), middle], 1)))
        wide = F.interpolate(middle, scale_factor=2.0, mode="bilinear", align_corners=False)
        return torch.sigmoid(self.leave(torch.cat([wide, top], 1)))


class Upscaler(nn.Module):
    """Super-resolution: sub-pixel shuffle, transposed convolutions with all of their options."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 12, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.grouped = nn.ConvTranspose2d(3, 6, 3, 2, 1, output_padding=1, groups=3)
        self.dilated = nn.ConvTranspose2d(6, 3, 3, 1, 2, dilation=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.dilated(F.gelu(self.grouped(self.shuffle(self.body(x)))))
        return answer


class Resizes(nn.Module):
    """Every way in which torch resizes."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (
            F.interpolate(x, scale_factor=2, mode="nearest"),
            F.interpolate(x, size=(9, 13), mode="nearest"),
            F.interpolate(x, size=(9, 13), mode="bilinear", align_corners=True),
            F.interpolate(x, size=(4, 5), mode="bilinear", align_corners=False),
            F.interpolate(x, scale_factor=1.5, mode="bilinear", align_corners=False),
        )


class NewerResizes(nn.Module):
    """What needs a newer operator set."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (
            F.interpolate(x, size=(9, 13), mode="bilinear", align_corners=False),
            F.interpolate(x, size=(9, 13), mode="nearest"),
            F.pixel_unshuffle(x, 2),
        )


class Pools(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (
            F.max_pool2d(x, 3, 2, 1),
            F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
            F.max_pool2d(x, (2, 3), (2, 1)),
            F.avg_pool2d(x, 3, 2, 1),
            F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
            F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False),
            F.adaptive_avg_pool2d(x, (1, 1)),
            F.adaptive_max_pool2d(x, (1, 1)),
            F.adaptive_avg_pool2d(x, (3, 2)),
        )


class PoolsOneAndThree(nn.Module):
    def forward(self, line: Tensor, cube: Tensor) -> tuple[Tensor, ...]:
        return (
            F.max_pool1d(line, 3, 2, 1),
            F.avg_pool1d(line, 4, 3, 2),
            F.max_pool3d(cube, 2, 2),
            F.avg_pool3d(cube, 3, 2, 1),
        )


class Norms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.batch = randomised(nn.BatchNorm2d(8))
        self.group = nn.GroupNorm(4, 8)
        self.instance = nn.InstanceNorm2d(8, affine=True)
        self.layer = nn.LayerNorm([6, 5])
        self.response = nn.LocalResponseNorm(3, alpha=0.1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (
            self.batch(x),
            self.group(x),
            self.instance(x),
            self.layer(x),
            self.response(x),
            F.normalize(x, dim=1),
        )


def volume() -> nn.Module:
    return randomised(
        nn.Sequential(
            nn.Conv3d(2, 4, 3, padding=1),
            nn.BatchNorm3d(4),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.ConvTranspose3d(4, 3, 2, 2),
            nn.Flatten(),
            nn.Linear(3 * 64, 4),
        )
    )


class Padded(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (
            F.pad(x, (1, 2, 0, 1), value=0.5),
            F.pad(x, (1, 2, 2, 1), mode="reflect"),
            F.pad(x, (3, 0, 1, 1), mode="replicate"),
        )


class Warped(nn.Module):
    """Spatial transformer: an affine grid, and sampling at computed points."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("theta", torch.tensor([[[0.9, 0.2, 0.1], [-0.3, 0.8, -0.1]]]))

    def forward(self, x: Tensor, points: Tensor) -> tuple[Tensor, ...]:
        theta: Tensor = self.theta  # type: ignore[assignment]
        grid = F.affine_grid(theta, [1, 2, 5, 6], align_corners=True)
        return (
            F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True),
            F.grid_sample(x, points, mode="bilinear", padding_mode="border", align_corners=False),
            F.grid_sample(x, points, mode="nearest", padding_mode="zeros", align_corners=False),
            F.grid_sample(x, points, mode="bilinear", padding_mode="reflection", align_corners=True),
        )
