"""PDEArena's Maxwell data in space, with what is wrong in them put right: 18 small sources in a periodic box.

The setting is that of Brandstetter et al. (2022) as their published generator has it: a box of 3.2e-5 m and 64³ cells,
permittivity 10, time steps of 0.99/√3 cells, 18 sources of 2 to 5 cells a side and one cell thick, 6 in planes across
each axis, polarised along one of the others, amplitudes up to 1, random phases; 8 frames, 25 steps apart, after 250
steps; 32³ values of each component. Frames of this solver differ from those, on purpose:

    theirs                                                     here
    all 8 frames are the last one: what is kept of each is a   each frame is of its own time
    view of an array that the simulation goes on changing
    E and H as they lie on Yee's grid, each component at a     E and cB averaged to cell centres, at one time
    place of its own, H half a step late
    E is stored as the displacement D (`d_field`), but D = 10E the field is E
    the middle 32³ cells of 64³: a window that waves enter     averages over 2³ cells: all of the box, periodic
    and leave, with the sources outside of it
    periods up to 1000 times the wavelength of 1e-5 m: nearly  wavelengths of 2e-5 to 3.5e-5 m (6 to 11 stored cells
    direct currents, which pile up charge                      in this medium), two cycles, no charge left
    sources that go on during the frames, unseen in them       silent before the first frame is stored

The last two also change how it looks: free waves of a few wavelengths in the box. Sources lie anywhere in it, their
axes and directions are drawn (6 across each axis only on average), and lengths are not rounded to cells. P/ε₀ up to
150 V/m is what adding up to 1 V/m to E in every step comes to at these wavelengths, 1 V/m · ε · λ / (2π c Δt).

Good values, the defaults: those above; ``resolution=16`` with ``downsample=1`` is enough for a try.

Source: Brandstetter, van den Berg, Welling and Gupta, "Clifford neural layers for PDE modeling" (2022), section 4;
simulated there with Laporte's package fdtd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from cliffsteer.solvers.maxwell3d_yee import Maxwell3dYee
from cliffsteer.solvers.registry import register

SOURCES = {
    "count": 18,
    "size": [1e-6, 2.5e-6],
    "thickness": 5e-7,
    "wavelength": [2e-5, 3.5e-5],
    "amplitude": [0.0, 150.0],
    "cycles": 2,
}


@register("maxwell3d_pdearena")
class Maxwell3dPDEArena(Maxwell3dYee):
    """PDEArena's 3D Maxwell setting, corrected: 18 small plane sources in a periodic box, stored as 32³ cell averages.

    The solver is ``maxwell3d_yee`` with other defaults; its other options hold as well. The recipe
    ``maxwell3d_pdearena`` stores 8 frames, 25 steps apart, from step 275 on, when the sources are silent.

    Args:
        resolution: number of stored cells along each side.
        size: length of each side, in m.
        dt: time step, in m/c.
        downsample: simulated cells a side of one stored cell.
        permittivity: relative permittivity.
        sources: arguments of ``CurrentSheets``.
        amplitude: root mean square of the initial fields, in V/m: none.
        scale: of the initial fields, if any, in m.
        options: those of ``maxwell3d_yee``.

    Raises:
        ValueError: as ``maxwell3d_yee``.
    """

    name: ClassVar[str] = "maxwell3d_pdearena"

    def __init__(
        self,
        resolution: int | Sequence[int] = 32,
        size: float | Sequence[float] = 3.2e-5,
        dt: float = 2.858e-7,
        downsample: int = 2,
        permittivity: float | None = 10.0,
        sources: Mapping[str, Any] | None = SOURCES,
        amplitude: float = 0.0,
        scale: float = 1.6e-5,
        **options: Any,
    ):
        super().__init__(
            resolution=resolution,
            size=size,
            dt=dt,
            downsample=downsample,
            permittivity=permittivity,
            sources=sources,
            amplitude=amplitude,
            scale=scale,
            **options,
        )
