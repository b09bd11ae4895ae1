"""The tabular network, built from its architecture.

Numbers come prepared (see :mod:`serving.torch_model`): float32 about 0, within +-3. They and their embeddings, the
missing indicators and the categories' embeddings go side by side into residual blocks. Several members share those
blocks: each scales the inputs in its own way and has its own head, and their predictions are averaged (TabM-mini:
Gorishniy, Kotelnikov, Babenko 2025, "TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling").
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from serving.torch_model import Architecture


class Piecewise(nn.Module):
    """Each number by how far it is through each of its bins, then linear and ReLU, per feature.

    Piecewise linear encoding of Gorishniy, Rubachev, Babenko 2022, "On Embeddings for Numerical Features in Tabular
    Deep Learning", clipped at both ends; a bin that a feature does not have has inverse width 0.
    """

    def __init__(self, features: int, bins: int, size: int) -> None:
        """The bins are buffers, to be filled by training: ``start`` and ``inverse`` width, ``(features, bins)``."""
        super().__init__()
        self.start: Tensor
        self.inverse: Tensor
        self.register_buffer("start", torch.zeros(features, bins))
        self.register_buffer("inverse", torch.zeros(features, bins))
        self.linear = PerFeature(features, bins, size)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, features)`` to ``(n, features * size)``."""
        through = ((x.unsqueeze(2) - self.start) * self.inverse).clamp(0, 1)
        return torch.relu(self.linear(through))


class Periodic(nn.Module):
    """Each number by sines and cosines of learnt frequencies, then linear and ReLU, per feature (same paper)."""

    def __init__(self, features: int, frequencies: int, size: int, deviation: float = 0.1) -> None:
        """Frequencies start normal with this standard deviation; the inputs are of size 1."""
        super().__init__()
        self.frequency = nn.Parameter(torch.randn(features, frequencies) * deviation)
        self.linear = PerFeature(features, 2 * frequencies, size)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, features)`` to ``(n, features * size)``."""
        angle = x.unsqueeze(2) * (2 * math.pi * self.frequency)
        return torch.relu(self.linear(torch.cat([angle.sin(), angle.cos()], 2)))


class PerFeature(nn.Module):
    """A linear layer of its own for each feature."""

    def __init__(self, features: int, given: int, size: int) -> None:
        """Weights are uniform as in ``nn.Linear``."""
        super().__init__()
        bound = given**-0.5
        self.weight = nn.Parameter(torch.empty(features, given, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(features, 1, size).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, features, given)`` to ``(n, features * size)``."""
        return torch.baddbmm(self.bias, x.transpose(0, 1), self.weight).transpose(0, 1).flatten(1)


class Block(nn.Module):
    """A residual block that normalises first."""

    def __init__(self, width: int, dropout: float) -> None:
        """The hidden layer is as wide."""
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        self.down = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """``(members, n, width)`` to the same."""
        deeper: Tensor = h + self.down(self.drop(torch.relu(self.up(self.norm(h)))))
        return deeper


class Net(nn.Module):
    """The network of an architecture."""

    def __init__(self, architecture: "Architecture") -> None:
        """Weights are drawn from torch's random generator."""
        super().__init__()
        a = architecture
        numbers, size = len(a.numeric), a.numeric_size
        self.embedded: Piecewise | Periodic | None = None
        if numbers and a.numeric_embedding == "piecewise":
            self.embedded = Piecewise(numbers, a.numeric_detail, size)
        elif numbers and a.numeric_embedding == "periodic":
            self.embedded = Periodic(numbers, a.numeric_detail, size)
        self.category = nn.Embedding(a.categories, a.categorical_size) if a.categorical else None
        given = a.inputs
        self.scale = nn.Parameter(torch.randint(0, 2, (a.members, 1, given)) * 2.0 - 1.0) if a.members > 1 else None
        self.first = nn.Linear(given, a.width)
        self.blocks = nn.ModuleList(Block(a.width, a.dropout) for _ in range(a.blocks))
        self.norm = nn.LayerNorm(a.width)
        bound = a.width**-0.5
        self.head = nn.Parameter(torch.empty(a.members, a.width, a.outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(a.members, 1, a.outputs))

    def forward(self, x: Tensor, missing: Tensor, codes: Tensor) -> Tensor:
        """Raw outputs of every member.

        Args:
            x: prepared numbers, float32 ``(n, numbers)``.
            missing: 1 where a number was missing, of those that have an indicator, ``(n, indicators)``.
            codes: rows of the embedding table, integers ``(n, categories)``.

        Returns:
            float32 ``(members, n, outputs)``: logits, or standardised values.
        """
        parts = [x, missing.to(x.dtype)]
        if self.embedded is not None:
            parts.append(self.embedded(x))
        if self.category is not None:
            parts.append(self.category(codes).flatten(1))
        h = torch.cat(parts, 1).unsqueeze(0)
        if self.scale is not None:
            h = h * self.scale
        h = self.first(h)
        for block in self.blocks:
            h = block(h)
        return torch.baddbmm(self.bias, torch.relu(self.norm(h)), self.head)
