"""Generated sequence and table models for the parity suite."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(8, 32),
        nn.GELU(),
        nn.Linear(32, 16),
        nn.SiLU(),
        nn.LayerNorm(16),
        nn.Linear(16, 3),
    )


def normed_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.PReLU(), nn.Linear(16, 1), nn.Sigmoid())


class Lstm(nn.Module):
    def __init__(self, layers: int, bidirectional: bool, bias: bool = True) -> None:
        super().__init__()
        self.body = nn.LSTM(5, 7, layers, bias, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(14 if bidirectional else 7, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        steps, (hidden, cell) = self.body(x)
        return self.head(steps), hidden, cell


class LstmWithState(nn.Module):
    """Keeps only the last step, from a state that is an input."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(5, 6)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> Tensor:
        steps, _ = self.body(x, (hidden, cell))
        answer: Tensor = steps[-1]
        return answer


class Gru(nn.Module):
    def __init__(self, layers: int, bidirectional: bool) -> None:
        super().__init__()
        self.body = nn.GRU(5, 6, layers, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        steps, hidden = self.body(x)
        return steps, hidden


class Elman(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.RNN(5, 6, 2, nonlinearity="tanh", batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        steps, hidden = self.body(x)
        return steps, hidden


class Attention(nn.Module):
    """Attention of several heads, written out or through torch's fused operator."""

    def __init__(self, width: int = 16, heads: int = 4, fused: bool = False) -> None:
        super().__init__()
        self.heads, self.size, self.fused = heads, width // heads, fused
        self.inner = nn.Linear(width, 3 * width)
        self.outer = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = (self._split(part) for part in self.inner(x).chunk(3, dim=-1))
        if self.fused:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:
            scores = query @ key.transpose(-2, -1) / math.sqrt(self.size)
            scores = scores if mask is None else scores.masked_fill(mask, -1e4)
            mixed = torch.softmax(scores, dim=-1) @ value
        answer: Tensor = self.outer(mixed.transpose(1, 2).reshape(2, -1, self.heads * self.size))
        return answer

    def _split(self, part: Tensor) -> Tensor:
        return part.reshape(2, -1, self.heads, self.size).transpose(1, 2)


class Encoder(nn.Module):
    """A transformer encoder over tokens: embedding, positions, two layers, mean, classes."""

    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50, 16)
        self.positions = nn.Parameter(torch.randn(1, 6, 16) * 0.1)
        self.attend = nn.ModuleList([Attention(fused=fused) for _ in range(2)])
        self.before = nn.ModuleList([nn.LayerNorm(16) for _ in range(2)])
        self.after = nn.ModuleList([nn.LayerNorm(16) for _ in range(2)])
        self.feed = nn.ModuleList(
            [
                nn.Sequential(nn.Linear(16, 32), nn.GELU(approximate="tanh"), nn.Linear(32, 16))
                for _ in range(2)
            ]
        )
        self.head = nn.Linear(16, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions
        for before, attend, after, feed in zip(self.before, self.attend, self.after, self.feed, strict=True):
            x = x + attend(before(x))
            x = x + feed(after(x))
        answer: Tensor = self.head(x.mean(dim=1))
        return answer


class CausalAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = Attention()
        self.register_buffer("mask", torch.triu(torch.ones(6, 6), 1).bool())

    def forward(self, x: Tensor) -> Tensor:
        mask: Tensor = self.mask  # type: ignore[assignment]
        answer: Tensor = self.attend(x, mask)
        return answer


class TextConvolution(nn.Module):
    """A convolution over time after an embedding, with the largest answer kept."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(30, 8)
        self.body = nn.Conv1d(8, 12, 3, padding="same")
        self.head = nn.Linear(12, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = F.relu(self.body(self.tokens(tokens).transpose(1, 2)))
        answer: Tensor = self.head(x.amax(dim=-1))
        return answer


class Separated(nn.Module):
    """A time convolution network with gates, as in WaveNet."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv1d(4, 8, 2, dilation=2)
        self.gate = nn.Conv1d(4, 8, 2, dilation=2)
        self.up = nn.ConvTranspose1d(8, 4, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (2, 0))
        answer: Tensor = self.up(torch.tanh(self.filter(x)) * torch.sigmoid(self.gate(x)))
        return answer


class TwoTowers(nn.Module):
    """Two inputs, three outputs: embeddings and their similarity."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(6, 8)
        self.right = nn.Linear(4, 8)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        one, other = F.normalize(self.left(left), dim=-1), F.normalize(self.right(right), dim=-1)
        return one, other, (one * other).sum(-1)
