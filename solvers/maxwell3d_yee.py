"""Maxwell's equations with dielectric bodies, currents and perfectly conducting walls, in space: Yee's scheme, batched.

    ∂ₜ(εE + P) = ∇·B/μ − Z₀σ E,   ∂ₜB = −∇∧E

with electric field E, a vector on edges, magnetic field B, a bivector on faces (``yee``; ``maxwell`` has the units and
the signs) and the polarisation P of the sources (``current_sheets``). A step of length τ is the leapfrog

    (ε + s) E ← (ε − s) E + τ ∇·B/μ − ΔP,   B ← B − τ ∇∧E,        s = τ Z₀σ/2

with B half a step ahead of E; ``substeps`` of them make a ``dt``. Time and space are of second order. Div D and div B
change by the divergence of the currents alone, and without currents and σ the energy Σ(εE² + B₋·B₊/μ)/2, with B half a
step before and after E, stays as it is, all to rounding. Stable for τ √(Σ 1/h²) <= √(εμ) everywhere.

Media: the cells have a permittivity, an edge the arithmetic mean of the four cells around it. That is what E along the
edge asks for: it is continuous across the faces that meet there, and D adds up. (Harmonic means belong to cells in
series, one behind the other along the edge; an edge is only as long as a cell, so there are none.) Interfaces along
faces of cells therefore keep second order; curved or oblique ones are stairs of partly filled cells, of first order. At
edges and corners of blocks fields are singular, which costs order as well: between first and second.

Walls: ``boundary="conductor"``: tangential E and normal B vanish on them.

Frames hold E and cB averaged to cell centres, at one time (B by half a step back), and, where there are inclusions, the
permittivity of the cells as a field that does not change; else it is a parameter.

Initial state: D and B the divergence and the exterior derivative of smooth noise (``noise.smooth_noise``), so free of
charges to rounding, times Π sin(πx/L) between walls; E and cB with a root mean square of ``amplitude``. Sources start
at time zero.

Good values, the defaults: 32 cells along a box of 1 m and 1/64 m/c, half a cell, per step, which is 0.87 of the longest
stable one in vacuum.

Sources: Yee, "Numerical solution of initial boundary value problems involving Maxwell's equations in isotropic media"
(1966); Taflove and Hagness, "Computational electrodynamics" (3rd ed., 2005), chapters 3 to 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from cliffsteer.fields import Field, FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.solvers.base import Solver, State, UnstableError
from cliffsteer.solvers.current_sheets import CurrentSheets, polarisation
from cliffsteer.solvers.inclusions import Inclusions
from cliffsteer.solvers.mac import MacGrid
from cliffsteer.solvers.maxwell import FIELD_UNIT, IMPEDANCE, TIME_UNIT, Media, box, check_media
from cliffsteer.solvers.noise import smooth_noise
from cliffsteer.solvers.options import number, require_values, whole
from cliffsteer.solvers.registry import register
from cliffsteer.solvers.yee import YeeGrid, average_blocks
from cliffsteer.stepper import Parameters


@register("maxwell3d_yee")
class Maxwell3dYee(Solver):
    """Electromagnetic waves with dielectric bodies, currents and conducting walls, 3D Maxwell equations; Yee's scheme.

    States hold ``electric_e{i}`` on the edges, ``magnetic_e{ij}`` on the faces, half a substep ahead, ``permittivity``
    of the cells and ``permittivity_e{i}`` of the edges, ``time`` and the ``sheets`` of current.

    Args:
        resolution: number of cells of frames along each side; one number or one per axis.
        size: length of each side, in m; one number or one per axis.
        dt: time step, in m/c.
        substeps: steps of the scheme in one ``dt``.
        downsample: frames are averages over blocks of so many simulated cells a side.
        boundary: "periodic" or "conductor"; one for all axes or one per axis.
        permittivity: relative permittivity, of the background where there are inclusions; default 1.
        permittivity_range: instead of it: lowest and highest; each trajectory draws its own, uniformly.
        permeability: relative permeability; default 1.
        permeability_range: instead of it: lowest and highest.
        conductivity: in S/m; default 0.
        conductivity_range: instead of it: lowest and highest.
        inclusions: arguments of ``Inclusions``, e.g. ``{"balls": 2}``; default: none.
        sources: arguments of ``CurrentSheets``, e.g. ``{"count": 3}``; default: none.
        amplitude: root mean square of E and of cB at the start, in V/m; 0 for none.
        scale: of the initial fields: waves are shorter than scale/√0.1, in m.
        smoothness: of the initial fields: potentials fall off as |k|^(−2·smoothness).

    Raises:
        ValueError: an option out of range, or a step that is unstable.

    Example:
        >>> solver = Maxwell3dYee(resolution=16, boundary="conductor", inclusions={"balls": 1})
        >>> frames = solver.observe(solver.initial([0, 1]))
        >>> solver.step(frames).shape
        torch.Size([2, 1, 8, 16, 16, 16])
    """

    name: ClassVar[str] = "maxwell3d_yee"
    time_unit: ClassVar[str] = TIME_UNIT

    def __init__(
        self,
        resolution: int | Sequence[int] = 32,
        size: float | Sequence[float] = 1.0,
        dt: float = 0.015625,
        substeps: int = 1,
        downsample: int = 1,
        boundary: str | Sequence[str] = "periodic",
        permittivity: float | None = None,
        permittivity_range: Sequence[float] | None = None,
        permeability: float | None = None,
        permeability_range: Sequence[float] | None = None,
        conductivity: float | None = None,
        conductivity_range: Sequence[float] | None = None,
        inclusions: Mapping[str, Any] | None = None,
        sources: Mapping[str, Any] | None = None,
        amplitude: float = 1.0,
        scale: float = 0.5,
        smoothness: float = 2.0,
    ):
        self.dt = number("dt", dt, TIME_UNIT, above=0.0)
        self.substeps = whole("substeps", substeps, 1)
        self.downsample = whole("downsample", downsample, 1)
        self.amplitude = number("amplitude", amplitude, FIELD_UNIT, low=0.0)
        self.scale = number("scale", scale, "m", above=0.0)
        self.smoothness = number("smoothness", smoothness, above=0.0)
        self.inclusions = Inclusions.of_options(inclusions)
        self.sources = CurrentSheets.of_options(sources)
        self.media = Media.of_options(
            permittivity=permittivity,
            permittivity_range=permittivity_range,
            permeability=permeability,
            permeability_range=permeability_range,
            conductivity=conductivity,
            conductivity_range=conductivity_range,
        )
        self.grid = box(resolution, size, boundary)
        fine = tuple(n * self.downsample for n in self.grid.shape)
        spacing = tuple(h / self.downsample for h in self.grid.spacing)
        self.yee = YeeGrid(Grid(fine, spacing, self.grid.boundary, self.grid.unit))
        fields = self.media.fields()
        if self.inclusions.count:
            fields[0] = Field("permittivity", 0, fields[0].unit)
        self.spec = FieldSpec(
            (1,) * self.grid.dim, [Field("electric", 1, FIELD_UNIT), Field("magnetic", 2, FIELD_UNIT), *fields]
        )
        names = self.spec.algebra.blade_names
        self._electric, self._magnetic = (
            tuple(f"{field}_{name}" for name, g in zip(names, self.spec.algebra.grades, strict=True) if g == grade)
            for field, grade in (("electric", 1), ("magnetic", 2))
        )
        self._edges = tuple(name.replace("electric", "permittivity") for name in self._electric)
        lowest = [self.media.lowest("permittivity")] + [self.inclusions.permittivity[0]] * bool(self.inclusions.count)
        self.check_step(min(lowest) * self.media.lowest("permeability"))

    def initial(self, seeds: Sequence[int]) -> State:
        """Noise without charges; media, bodies and sources drawn where the options ask for them."""
        drawn = [self._draw(torch.Generator().manual_seed(int(seed))) for seed in seeds or [0]]  # one, for the shapes
        values, parameters = (
            {name: torch.stack([part[name] for part in parts])[: len(seeds)] for name in parts[0]}
            for parts in zip(*drawn, strict=True)
        )
        state = self._with_media(values, parameters)
        edges = [d / eps for d, eps in zip(self.edges(state), self._media_of(state)[0], strict=True)]
        edges, faces = (self._scaled(field, grade) for grade, field in ((1, edges), (2, self.faces(state))))
        self.yee.add_wedge(faces, edges, 1, -self._tau / 2)
        return self.with_fields(state, edges, faces)

    def advance(self, state: State) -> State:
        """The state one ``dt`` later.

        Raises:
            ValueError: a medium that is not finite, out of range, or so thin that the step is unstable.
        """
        eps, mu, sigma = self._checked_media(state)
        time, sheets = state.values["time"], state.values["sheets"]
        edges, faces = _copies(self.edges(state)), _copies(self.faces(state))
        keeps = None
        if bool((sigma > 0).any()):
            loss = sigma * (self._tau * IMPEDANCE / 2)
            eps, keeps = [e + loss for e in eps], [(e - loss) / (e + loss) for e in eps]
        factor, divisors = (self._tau / mu, eps) if self.inclusions.count else (self._tau / (mu * eps[0]), None)
        for _ in range(self.substeps):
            for field, keep in zip(edges, keeps or (), strict=False):
                field.mul_(keep)
            self.yee.add_divergence(edges, faces, 2, factor, divisors)
            if not self.sources.silent(sheets, time):
                change = self.sources.waveform(sheets, time + self._tau) - self.sources.waveform(sheets, time)
                for field, p, e in zip(edges, polarisation(self.yee, sheets, change), eps, strict=True):
                    field.addcdiv_(p, e, value=-1)
            self.yee.add_wedge(faces, edges, 1, -self._tau)
            time = time + self._tau
        return self.with_fields(State(state.values | {"time": time}, state.parameters), edges, faces)

    def observe(self, state: State) -> Tensor:
        """E and cB of one time, averaged to cells, and the cells' permittivity: (batch, 1, blade, *grid), float64."""
        edges, faces = self.edges(state), [field.clone() for field in self.faces(state)]
        self.yee.add_wedge(faces, edges, 1, self._tau / 2)
        shown = {
            "electric": self.yee.to_centers(edges, 1, self.downsample)[:, None],
            "magnetic": self.yee.to_centers(faces, 2, self.downsample)[:, None],
        }
        if self.inclusions.count:
            shown["permittivity"] = average_blocks(state.values["permittivity"], self.downsample)[:, None]
        return self.spec.pack(shown)

    def restore(self, frames: Tensor, parameters: Parameters | None = None) -> State:
        """The smoothest state that shows the last frame, B free of divergence; without sources.

        Frames do not show the checkerboards that averaging takes away (on periodic axes of even length), nor which
        sources are on: a step from frames is one without them. Otherwise, without ``downsample``, the state is that
        which the frames came from, to their rounding; what the shortest waves lack in the frames is put back, so noise
        of the shortest waves on frames grows, by up to 2n/π for each axis that a component was averaged over.
        """
        self.require_finite(frames)
        fields = {name: x[:, 0] for name, x in self.spec.unpack(frames[:, -1:].to(torch.float64)).items()}
        edges = self.yee.from_centers(fields["electric"], 1, self.downsample)
        faces = self._closed(self.yee.from_centers(fields["magnetic"], 2, self.downsample))
        values = {
            "time": edges[0].new_zeros(len(frames)),
            "sheets": edges[0].new_zeros(len(frames), 0, 3 * self.grid.dim + 2),
        }
        if self.inclusions.count:
            cells = fields["permittivity"][:, 0]
            for axis in range(1, cells.ndim):
                cells = cells.repeat_interleave(self.downsample, axis)
            values["permittivity"] = cells
        state = self._with_media(values, self.read_parameters(parameters, len(frames), frames.device))
        self.yee.add_wedge(faces, edges, 1, -self._tau / 2)
        return self.with_fields(state, edges, faces)

    def edges(self, state: State) -> list[Tensor]:
        """E on the edges, one tensor per axis."""
        return [state.values[name] for name in self._electric]

    def faces(self, state: State) -> list[Tensor]:
        """B on the faces, half a substep ahead of E, one tensor per blade."""
        return [state.values[name] for name in self._magnetic]

    def with_fields(self, state: State, edges: Sequence[Tensor], faces: Sequence[Tensor]) -> State:
        """A state with these fields and all else from ``state``."""
        fields = dict(zip((*self._electric, *self._magnetic), (*edges, *faces), strict=True))
        return State(state.values | fields, state.parameters)

    def energy(self, state: State) -> Tensor:
        """Mean energy density of each trajectory, the one that the scheme conserves, in units of ε₀, shape (batch,)."""
        edges, after = self.edges(state), self.faces(state)
        before = [field.clone() for field in after]
        self.yee.add_wedge(before, edges, 1, self._tau)
        eps, mu, _ = self._media_of(state)
        total = sum((e * field.square()).flatten(1).sum(1) for e, field in zip(eps, edges, strict=True))
        total = total + sum((a * b / mu).flatten(1).sum(1) for a, b in zip(before, after, strict=True))
        return total / (2 * math.prod(self.yee.grid.shape))

    def check_step(self, medium: float) -> None:
        """Raise an UnstableError when the scheme is unstable in a medium of this product εμ."""
        reach = math.sqrt(sum(h**-2 for h in self.yee.grid.spacing) / medium)
        if self._tau * reach > 1 + 1e-9:
            raise UnstableError(
                f"`dt` (={self.dt:g} {TIME_UNIT}) in {self.substeps} substep(s) is unstable where εμ = {medium:.3g} on"
                f" cells of {min(self.yee.grid.spacing):.3g} m: dt/substeps · √(Σ 1/h²) / √(εμ) ="
                f" {self._tau * reach:.3g} must not exceed 1; take `substeps` >= {math.ceil(self.dt * reach - 1e-9)} or"
                f" `dt` <= {self.substeps / reach:.3g}."
            )

    # ----------------------------------------------------------------------------------------------- private

    @property
    def _tau(self) -> float:
        return self.dt / self.substeps

    def _draw(self, generator: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Values of one trajectory, with D in place of E and without media on edges, and its parameters."""
        parameters, values = self.media.draw(generator), {"time": torch.zeros((), dtype=torch.float64)}
        fine = self.yee.grid
        if self.inclusions.count:
            background = float(parameters.pop("permittivity"))
            values["permittivity"] = self.inclusions.draw(fine, background, generator)
        values["sheets"] = self.sources.draw(fine, generator)
        edges, faces = (self.yee.zeros(grade, values["time"][None]) for grade in (1, 2))
        if self.amplitude:
            of_edges, of_faces = (
                [self._noise(blade, generator)[None] for blade in self.yee.blades(grade)] for grade in (2, 1)
            )
            self.yee.add_divergence(edges, of_edges, 2)
            self.yee.add_wedge(faces, of_faces, 1)
        fields = zip((*self._electric, *self._magnetic), (*edges, *faces), strict=True)
        return values | {name: field[0] for name, field in fields}, parameters

    def _noise(self, blade: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Smooth noise at the places of a blade, zero on walls."""
        fine = self.yee.grid
        noise = smooth_noise(Grid(fine.shape, fine.spacing), self.scale, self.smoothness, generator)
        for axis, (n, h) in enumerate(zip(fine.shape, fine.spacing, strict=True)):
            if axis not in blade:  # from centres to the nodes half a cell below
                shift = torch.exp(-1j * math.pi * torch.fft.fftfreq(n, dtype=torch.float64))
                spectrum = torch.fft.fft(noise, dim=axis) * shift.view(-1, *[1] * (fine.dim - 1 - axis))
                noise = torch.fft.ifft(spectrum, dim=axis).real
            if not self.yee.periodic[axis]:
                x = self.yee.positions(blade)[axis]
                window = torch.sin(math.pi / (n * h) * x)
                noise = noise.narrow(axis, n - len(x), len(x)) * window.view(-1, *[1] * (fine.dim - 1 - axis))
        return noise

    def _scaled(self, field: Sequence[Tensor], grade: int) -> list[Tensor]:
        """The field with a root mean square of ``amplitude`` over the cells of each trajectory."""
        mean_square = self.yee.to_centers(field, grade).square().sum(1).flatten(1).mean(1)
        factor = self.amplitude / torch.where(mean_square > 0, mean_square, 1.0).sqrt()
        return [x * _spread(factor, x) for x in field]

    def _closed(self, faces: Sequence[Tensor]) -> list[Tensor]:
        """The nearest B with ∇∧B = 0: that of its axial vector, the flow through the faces, without divergence."""
        blades, dim = self.yee.blades(2), self.grid.dim
        rest = [next(axis for axis in range(dim) if axis not in blade) for blade in blades]
        signs = [(-1) ** (axis + dim - 1) for axis in rest]
        walls = ["periodic" if periodic else "slip" for periodic in self.yee.periodic]
        mac = MacGrid(Grid(self.yee.grid.shape, self.yee.grid.spacing, walls))
        flow = dict(zip(rest, (f * s for f, s in zip(faces, signs, strict=True)), strict=True))
        flow = mac.project([flow[axis] for axis in range(dim)])
        return [flow[axis] * sign for axis, sign in zip(rest, signs, strict=True)]

    def _with_media(self, values: dict[str, Tensor], parameters: dict[str, Tensor]) -> State:
        """The state with the permittivity on edges, where there are inclusions: means of the cells around them."""
        if self.inclusions.count:
            cells = values["permittivity"]
            require_values("permittivity", cells.flatten(1), above=0.0)
            edges = self.yee.to_edges(cells)
            return State(values | dict(zip(self._edges, edges, strict=True)), parameters)
        return State(values, parameters)

    def _media_of(self, state: State) -> tuple[list[Tensor], Tensor, Tensor]:
        """Permittivity on each edge, permeability and conductivity, all broadcast against fields on edges."""
        media = {name: value.view(-1, *[1] * self.grid.dim) for name, value in state.parameters.items()}
        uniform = [media["permittivity"]] * self.grid.dim if "permittivity" in media else []
        eps = uniform or [state.values[name] for name in self._edges]
        return eps, media["permeability"], media["conductivity"]

    def _checked_media(self, state: State) -> tuple[list[Tensor], Tensor, Tensor]:
        check_media(state.parameters)
        eps, mu, sigma = self._media_of(state)
        if len(mu):  # no edge has less than the least of its cells
            cells = state.values["permittivity"] if self.inclusions.count else eps[0]
            self.check_step(float((cells.flatten(1).amin(1) * mu.flatten()).min().detach()))
        return eps, mu, sigma


def _copies(fields: Sequence[Tensor]) -> list[Tensor]:
    """Copies; without a gradient in one piece of memory, which is cheaper to get from the system than several."""
    if torch.is_grad_enabled() and any(field.requires_grad for field in fields):
        return [field.clone() for field in fields]
    whole = torch.cat([field.flatten() for field in fields])
    parts = whole.split([field.numel() for field in fields])
    return [part.view(field.shape) for part, field in zip(parts, fields, strict=True)]


def _spread(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
