"""Complete steerable kernels: every steerable kernel on the lattice, as free radial values on the analytic basis."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.nn.checks import whole
from cliffsteer.nn.kernels.base import SteerableKernel
from cliffsteer.nn.kernels.basis import map_targets
from cliffsteer.nn.kernels.lattice import check_kernel_size

_VISIBLE = 1e-6  # peak on the lattice, of 1, below which a smooth radial function falls between the points


class CompleteKernel(SteerableKernel):
    """K(x) = Σ_b r_b(orbit of x) M_b(x) over all 4n equivariant maps M_b (8n for SO), see `kernels.basis`.

    The radial values r are free, one per map, orbit and pair of channels ("orbit"), or smooth functions of q(x)
    ("smooth": a sum of Gaussians in sgn(q) sqrt|q|, so that the kernel is defined between the points too).

    Initialisation keeps the variance. The basis elements E_{b,f}(x) = φ_f(orbit) M_b(x) of different maps are
    orthogonal. With coefficients w / N, N² = Σ_x |E(x)|² / C(n, l) for a map into grade l, and independent
    w ~ N(0, 1/(c_in n_l)), n_l the number of elements into grade l, white input of unit variance gives, in expectation,
    output of variance c_in Σ_{elements into l} Var(w) = 1 in every grade.

    Args:
        algebra: the algebra.
        in_channels: multivectors in.
        out_channels: multivectors out.
        kernel_size: points along each axis, odd.
        group: "O", "SO" or "orthochronous".
        radial: "orbit" or "smooth".
        n_radial: number of Gaussians for "smooth", at least 2; default kernel_size // 2 + 2. Those so narrow that they
            fall between the points have no weights.
        causal: let the kernel see only the past light cone and the present point: K(v) = 0 unless v = 0 or v is not
            spacelike and points to the past; needs group "orthochronous".

    Raises:
        ValueError: an even or non-positive kernel size, an unknown option, or `causal` without orthochronous symmetry.
    """

    def __init__(
        self,
        algebra: CliffordAlgebra,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        group: str = "O",
        radial: str = "orbit",
        n_radial: int | None = None,
        causal: bool = False,
    ):
        check_kernel_size(kernel_size, allow_even=False)
        if radial not in ("orbit", "smooth"):
            raise ValueError(f"`radial` (={radial!r}) must be 'orbit' or 'smooth'.")
        if causal and group != "orthochronous":
            raise ValueError(
                f"`causal` needs `group` 'orthochronous' (={group!r}), which tells the past from the future."
            )
        if radial == "orbit" and n_radial is not None:
            raise ValueError(f"`n_radial` (={n_radial}) goes with `radial` 'smooth'; 'orbit' has one value per orbit.")
        if n_radial is not None:
            n_radial = whole("n_radial", n_radial, 2)
        super().__init__(algebra, in_channels, out_channels, kernel_size, group)
        self.radial_kind, self.causal = radial, causal
        self.n_radial = kernel_size // 2 + 2 if n_radial is None else n_radial
        profile = self._functions(self.basis.q[1:], self.basis.side[1:])
        self._live = (profile > _VISIBLE).any(0)  # others have no value on the lattice that a weight could be given for
        profile = profile[:, self._live]
        self.register_buffer("profile", profile.to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("scale", self._scale(profile).to(torch.get_default_dtype()), persistent=False)
        identities = (torch.tensor(self.basis.degrees) == 0).nonzero().squeeze(1)
        self.register_buffer("identities", identities, persistent=False)
        shape = (out_channels, in_channels)
        self.origin = nn.Parameter(torch.empty(len(identities), *shape))
        self.weight = nn.Parameter(torch.empty(self.basis.n_maps, profile.shape[1], *shape))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the coefficients as the class says."""
        into = self._target_grades()
        per_grade = torch.bincount(into[self.identities]) + self.weight.shape[1] * torch.bincount(into)
        std = (self.in_channels * per_grade[into]).rsqrt().view(-1, 1, 1)
        with torch.no_grad():
            self.weight.normal_().mul_(std.unsqueeze(-1))
            self.origin.normal_().mul_(std[self.identities])

    def radial(self) -> Tensor:
        """Radial values, shape (maps, orbits, out_channels, in_channels)."""
        values = torch.einsum("rf,bf,bfoi->broi", self.profile, self.scale, self.weight)
        origin = values.new_zeros(len(values), 1, *values.shape[2:])
        origin = origin.index_put((self.identities,), self.origin.unsqueeze(1).to(values.dtype))
        return torch.cat([origin, values], 1)

    def resampled(self, kernel_size: int) -> CompleteKernel:
        """The same function of position on a lattice of another spacing: the kernel of a finer or coarser grid.

        The kernel still spans the same domain, so the grid spacing it suits changes by the ratio of (k - 1); values are
        scaled by the number of points, so that a sum over them stays the same integral. Radial functions that fall
        between the points of this kernel have no weight here, and none there.

        Raises:
            ValueError: radial values that are free per orbit: they are defined on their own lattice only.
        """
        if self.radial_kind != "smooth":
            raise ValueError(
                "`resampled` needs `radial` 'smooth': free values per orbit say nothing between the points."
            )
        other = CompleteKernel(
            self.algebra,
            self.in_channels,
            self.out_channels,
            kernel_size,
            self.group,
            "smooth",
            self.n_radial,
            self.causal,
        ).to(self.weight)
        mine, others = self._live[other._live], other._live[self._live]  # of each other's functions, those in common
        ratio = self.scale[:, others] / other.scale[:, mine] * (len(self.orbit) / len(other.orbit))
        with torch.no_grad():
            other.origin.copy_(self.origin)
            other.weight.zero_()
            other.weight[:, mine] = self.weight[:, others] * ratio.view(*ratio.shape, 1, 1)
        return other

    def _target_grades(self) -> Tensor:
        """Output grade of each map."""
        return torch.tensor(map_targets(self.algebra, self.group))

    def profile_at(self, q: Tensor, side: Tensor) -> Tensor:
        """The smooth radial functions anywhere but at the origin.

        Args:
            q: the quadratic form in units of the kernel's radius squared, float64, (points,).
            side: sign of time for "orthochronous", as `KernelBasis.side`; otherwise it does not matter.

        Returns:
            Shape (points, functions).

        Raises:
            ValueError: radial values that are free per orbit.
        """
        if self.radial_kind != "smooth":
            raise ValueError(
                "`profile_at` needs `radial` 'smooth': free values per orbit say nothing between the points."
            )
        return self._functions(q, side)[:, self._live]

    def _functions(self, q: Tensor, side: Tensor) -> Tensor:
        """Radial functions beyond the origin, one for each orbit or smooth ones, (points, functions)."""
        if self.radial_kind == "orbit":
            profile = torch.eye(len(q), dtype=torch.float64)
        else:
            reach = [self.algebra.signature.count(sign) ** 0.5 for sign in (-1, 1)]
            centres = torch.linspace(-reach[0], reach[1], self.n_radial, dtype=torch.float64)
            radius = q.sign() * q.abs().sqrt()
            profile = torch.exp(-((radius.unsqueeze(1) - centres) / (centres[1] - centres[0])).square())
            if self.group == "orthochronous":
                profile = torch.cat([profile * (side == s).unsqueeze(1) for s in (-1, 0, 1)], 1)
        return profile * (side < 0).unsqueeze(1) if self.causal else profile

    def _scale(self, profile: Tensor) -> Tensor:
        """1 / N of each map and radial function; see the class."""
        basis = self.basis
        into = self._target_grades()
        blades = torch.tensor([self.algebra.grade_size(int(k)) for k in into])
        squares = basis.maps.square().sum((1, 2))  # (maps, points)
        per_orbit = squares.new_zeros(len(into), basis.n_orbits).index_add(1, basis.orbit, squares)[:, 1:]
        return (per_orbit @ profile.square() / blades.unsqueeze(1)).rsqrt()
