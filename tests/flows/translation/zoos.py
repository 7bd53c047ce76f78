"""Models that are collections of single operators, for the parity suite."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Arithmetic(nn.Module):
    """Elementwise operators on values of which some are negative, and on positive ones."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        positive = x.abs() + 0.5
        return (
            x + y * 2 - 1,
            x / positive,
            torch.floor_divide(x, positive),
            torch.remainder(x, positive),
            torch.maximum(x, y) + torch.minimum(x, -y),
            positive.pow(1.7),
            positive.log() + positive.sqrt() + positive.rsqrt(),
            torch.exp(-positive) + torch.exp2(x),
            torch.erf(x),
            torch.sin(x) + torch.cos(y) + torch.tan(x * 0.3),
            torch.sinh(x * 0.5) + torch.cosh(y * 0.5) + torch.tanh(x),
            torch.asin(x.clamp(-0.9, 0.9)) + torch.acos(y.clamp(-0.9, 0.9)) + torch.atan(x),
            torch.atanh(x.clamp(-0.7, 0.7)),
            x.ceil() + x.floor() + x.round() + x.sign(),
            x.clamp(min=-0.3) + x.clamp(max=0.4),
            x.square() + y / positive,
        )


class Choices(nn.Module):
    """Comparison, logic and choice."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        above, below = x > y, x < 0.2
        both = torch.logical_and(above, below)
        either = torch.logical_or(above, torch.logical_not(below))
        return (
            torch.where(above, x, y),
            torch.where(both, x, torch.zeros_like(x)),
            either.float() + torch.logical_xor(above, below).float(),
            (x >= y).float() + (x <= y).float() + (x == y).float() + (x != y).float(),
            x.masked_fill(below, -2.0),
        )


class Activations(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (
            F.relu(x) + F.relu6(x * 4),
            F.leaky_relu(x, 0.2),
            F.elu(x, 0.7),
            F.gelu(x),
            F.gelu(x, approximate="tanh"),
            F.silu(x),
            F.hardswish(x * 3),
            F.hardsigmoid(x * 3),
            F.softplus(x),
            F.softsign(x),
            F.mish(x),
            F.selu(x),
            F.hardtanh(x, -0.5, 0.5),
            F.threshold(x, 0.1, 0.0),
            F.softmax(x, dim=1) + F.log_softmax(x, dim=-1),
            F.softmin(x, dim=-1),
            F.glu(x, dim=-1),
        )


class Reductions(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (
            x.sum(dim=(1, 2)),
            x.mean(dim=-1, keepdim=True),
            x.amax(dim=1),
            x.amin(dim=(0, 2)),
            x.norm(dim=-1),
            x.norm(p=1, dim=1),
            torch.logsumexp(x, dim=-1),
            x.std(dim=-1),
            x.var(dim=1, unbiased=False),
            x.argmax(dim=-1),
            x.argmin(dim=1),
            x.cumsum(dim=1),
            x.sum(),
        )


class Orders(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        values, indices = torch.topk(x, 3, dim=-1)
        least, where = torch.topk(x, 2, dim=1, largest=False)
        return values, indices, least, where, torch.argsort(x, dim=-1, descending=True), x.sort(dim=1)[0]


class Selections(nn.Module):
    """Slices, gathers and splits."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("picks", torch.tensor([3, 0, 2]))

    def forward(self, x: Tensor, at: Tensor) -> tuple[Tensor, ...]:
        picks: Tensor = self.picks  # type: ignore[assignment]
        first, second = torch.split(x, [1, 3], dim=1)
        return (
            x[:, 1:3],
            x[..., -1],
            x[:, ::2, 1:],
            x[:, -2:, :-1],
            x.index_select(1, picks),
            torch.gather(x, 2, at.long()),
            first * 2,
            second.chunk(2, dim=2)[1],
            x.narrow(2, 1, 3),
            x.flip(2),
            torch.roll(x, 1, dims=2),
            x[:, picks],
        )


class Shapes(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (
            x.reshape(2, -1),
            x.permute(2, 0, 1),
            x.unsqueeze(1).expand(2, 3, 4, 6),
            x.unsqueeze(-1).squeeze(-1) + 1,
            x.repeat(1, 2, 1),
            torch.stack([x, x * 2], dim=1),
            torch.cat([x, x[:, :1]], dim=1),
            x.view(2, 2, 2, 6).transpose(1, 2).flatten(1),
            torch.tril(x) + torch.triu(x, 1),
            torch.zeros_like(x) + torch.ones_like(x) + torch.full((6,), 0.5),
            x.unbind(1)[2],
        )


class Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3) * 0.4)
        self.mix = nn.Linear(6, 4, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (
            x @ self.weight,
            torch.bmm(x, y.transpose(1, 2)),
            torch.einsum("bij,bkj->bik", x, y),
            self.mix(x),
            torch.matmul(x, y.transpose(-1, -2)).softmax(-1),
            torch.addmm(torch.ones(3), x[0], self.weight),
        )


class Writes(nn.Module):
    """Scatters of all kinds that torch converts to."""

    def forward(self, x: Tensor, at: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        return x.scatter(1, at.long(), values), x.scatter_add(1, at.long(), values)


class Integers(nn.Module):
    """Whole numbers in and out."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x + y * 2, torch.div(x, 3, rounding_mode="floor"), x % 3, (x > y).int(), x.float() / 2
