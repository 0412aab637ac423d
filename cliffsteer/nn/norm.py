"""Equivariant normalisation of multivector channels.

Multivectors may only be divided by invariants, functions of the quadratic forms q_k = q(<x>_k). With an indefinite
metric these can be negative, or vanish for large (null) multivectors, so a norm must be smooth through zero and must
not amplify null fields. Two choices of the norm n(q):

* `smooth_norm`, the default: (q² + ε²)^{1/4}, smooth for either sign of q;
* `reference_norm`: the clamped norm of the published code of Zhdanov et al. (2024), for exact comparison with it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.functional import smooth_norm
from cliffsteer.nn.checks import check_algebra, whole
from cliffsteer.nn.linear import check_channels

Norm = Callable[[Tensor], Tensor]


def reference_norm(q: Tensor) -> Tensor:
    """The published code's norm, (max(q, 0.01)² + 1e-16)^{1/4}: constant 0.1, without gradient, wherever q < 0.01."""
    return (q.clamp(min=0.01).square() + 1e-16).pow(0.25)


NORMS: dict[str, Norm] = {"smooth": smooth_norm, "reference": reference_norm}


class GradeNorm(nn.Module):
    """Grade-wise normalisation <y>_k = <x>_k / (s_k (n_k - 1) + 1), s_k = σ(a_k) learned per channel and grade.

    It interpolates between no normalisation (s = 0) and full normalisation (s = 1) (Ruhe et al. 2023, section 4).

    Args:
        algebra: the algebra.
        channels: number of channels.
        norm: n_k = norm(q_k), "smooth" or "reference".
    """

    def __init__(self, algebra: CliffordAlgebra, channels: int, norm: str = "smooth"):
        super().__init__()
        check_algebra(algebra)
        channels = whole("channels", channels)
        self.algebra, self.norm = algebra, choose_norm(norm)
        self.factor = nn.Parameter(torch.zeros(channels, algebra.n_grades))
        self.register_buffer("grade_of_blade", torch.tensor(algebra.grades), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise multivectors (batch, channel, blade, *grid)."""
        check_channels(self, x, len(self.factor), self.algebra)
        norms = self.norm(self.algebra.quadratic_forms(x, axis=2))
        strength = torch.sigmoid(self.factor).view(*self.factor.shape, *[1] * (x.ndim - 3))
        scale = strength * (norms - 1) + 1 + 1e-6
        return x / scale.index_select(2, self.grade_of_blade)


class MVLayerNorm(nn.Module):
    """Divide all channels by their magnitude: y_c,k = γ_c,k <x_c>_k / sqrt(ε + mean_c Σ_k |q_k(x_c)|).

    The magnitude is that at each point, or with ``over_points`` one of the whole field, the mean over points too, as in
    group norm: then what is weak at a point stays weak. |q| is smoothed at zero. With an indefinite metric null fields
    have q = 0 however large they are; ε then defaults to 1, so that they pass undivided and nothing is ever amplified.

    Args:
        algebra: the algebra.
        channels: number of channels.
        epsilon: ε; default 1e-5 for a definite metric, 1 for an indefinite one.
        affine: learn γ, one scale per channel and grade (a constant, hence equivariant); starts at 1.
        over_points: one magnitude for all points of a sample.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        channels: int,
        epsilon: float | None = None,
        affine: bool = True,
        over_points: bool = False,
    ):
        super().__init__()
        check_algebra(algebra)
        self.over_points = over_points
        self.algebra, self.channels = algebra, whole("channels", channels)
        self.epsilon = (1e-5 if algebra.is_definite else 1.0) if epsilon is None else epsilon
        self.scale = nn.Parameter(torch.ones(channels, algebra.n_grades)) if affine else None
        self.register_buffer("grade_of_blade", torch.tensor(algebra.grades), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise multivectors (batch, channel, blade, *grid)."""
        check_channels(self, x, self.channels, self.algebra)
        if self.algebra.is_definite:
            square = x.square().sum(2, keepdim=True)
        else:
            q = self.algebra.quadratic_forms(x, axis=2)
            square = smooth_norm(q, 1e-3).square().sum(2, keepdim=True)
        over = [1, *range(3, x.ndim)] if self.over_points else 1
        y = x * torch.rsqrt(square.mean(over, keepdim=True) + self.epsilon)
        if self.scale is None:
            return y
        scale = self.scale.index_select(1, self.grade_of_blade)
        return y * scale.view(*scale.shape, *[1] * (x.ndim - 3))


class ReferenceLayerNorm(nn.Module):
    """The published code's layer norm: x / (mean_c reference_norm(q(x_c)) + 1e-6), without parameters.

    Args:
        algebra: the algebra.
        channels: number of channels.
    """

    def __init__(self, algebra: CliffordAlgebra, channels: int):
        super().__init__()
        check_algebra(algebra)
        self.algebra, self.channels = algebra, whole("channels", channels)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise multivectors (batch, channel, blade, *grid)."""
        check_channels(self, x, self.channels, self.algebra)
        norms = reference_norm(self.algebra.quadratic_form(x, axis=2))
        return x / (norms.mean(1, keepdim=True) + 1e-6)


def reads_whole_field(module: nn.Module) -> bool:
    """Whether a module has a norm over all points, so that what it gives at one of them depends on all others."""
    return any(isinstance(m, nn.GroupNorm) or getattr(m, "over_points", False) for m in module.modules())


def layer_norm(name: str | None, algebra: CliffordAlgebra, channels: int) -> nn.Module:
    """A norm by name: "layer" (`MVLayerNorm` at each point), "group" (over all points), "reference", "none".

    Raises:
        ValueError: another name.
    """
    match name:
        case "layer":
            return MVLayerNorm(algebra, channels)
        case "group":
            return MVLayerNorm(algebra, channels, over_points=True)
        case "reference":
            return ReferenceLayerNorm(algebra, channels)
        case "none" | None:
            return nn.Identity()
    raise ValueError(f"`norm` (={name!r}) must be 'layer', 'group', 'reference' or 'none'.")


def choose_norm(name: str) -> Norm:
    """The norm function of this name.

    Raises:
        ValueError: another name.
    """
    if name not in NORMS:
        raise ValueError(f"`norm` (={name!r}) must be one of {', '.join(map(repr, NORMS))}.")
    return NORMS[name]
