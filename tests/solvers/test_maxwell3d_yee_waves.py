import itertools
import math

import pytest
import torch

from cliffsteer.solvers import create
from cliffsteer.solvers.current_sheets import polarisation as polarisation_of
from cliffsteer.solvers.maxwell import IMPEDANCE

BODIES = {"balls": 1, "blocks": 1}


def relative(a, b):
    return float((a - b).norm() / b.norm())


def advanced(solver, seeds=(0, 1), steps=3, state=None):
    state = solver.initial(seeds) if state is None else state
    for _ in range(steps):
        state = solver.advance(state)
    return state


def empty(solver, permittivity=None):
    """A state without fields, and with this permittivity of the cells, shape (*grid)."""
    frames = torch.zeros(1, 1, solver.spec.n_blades, *solver.grid.shape, dtype=torch.float64)
    if permittivity is not None:
        frames[0, 0, 0] = permittivity
    return solver.restore(frames)


def sampled(solver, state, electric, magnetic):
    """The state with E_i(x, t=0) = electric(i, x) and B_ij = magnetic(ij, x, t) half a step later."""
    later = solver.dt / solver.substeps / 2
    edges, faces = (
        [f(b, torch.meshgrid(*solver.yee.positions(b), indexing="ij"))[None] for b in solver.yee.blades(grade)]
        for grade, f in ((1, electric), (2, lambda b, x: magnetic(b, x, later)))
    )
    return solver.with_fields(state, edges, faces)


def orders(errors, resolutions):
    pairs = zip(itertools.pairwise(errors), itertools.pairwise(resolutions), strict=True)
    return [math.log(a / b) / math.log(n / m) for (a, b), (m, n) in pairs]


# ------------------------------------------------------------------------------------------- exact solutions


@pytest.mark.parametrize("sigma", [0.0, 0.002])
def test_plane_waves_converge_with_order_two(sigma):
    # E = Re a exp(i(k·x − wt)), B = Re k∧a/w exp(i(k·x − wt)) with εμ w² + iμZ₀σ w = k².
    resolutions, errors = (12, 24, 48), []
    a, eps, mu = (2.0, -1.0, 0.7), 1.5, 1.2
    k = (2 * math.pi, 4 * math.pi, 0.0)
    loss = 1j * IMPEDANCE * sigma / (2 * eps)
    w = -loss + (loss * loss + sum(x * x for x in k) / (eps * mu)) ** 0.5
    for n in resolutions:
        solver = create("maxwell3d_yee", resolution=(n, n, 4), size=(1, 1, 4 / n), dt=0.6 / n, amplitude=0.0,
                        permittivity=eps, permeability=mu, conductivity=sigma)  # fmt: skip

        def phase(x, t):
            return torch.exp(1j * (k[0] * x[0] + k[1] * x[1] - w * t))

        def electric(blade, x, t=0.0):
            return (a[blade[0]] * phase(x, t)).real

        def magnetic(blade, x, t):
            return ((k[blade[0]] * a[blade[1]] - k[blade[1]] * a[blade[0]]) / w * phase(x, t)).real

        state = advanced(solver, steps=n, state=sampled(solver, empty(solver), electric, magnetic))
        fields = solver.spec.unpack(solver.observe(state))
        x, end = solver.grid.coordinates(), n * solver.dt
        exact = torch.stack([electric((i,), x, end) for i in range(3)])
        exact_magnetic = torch.stack([magnetic(blade, x, end) for blade in solver.yee.blades(2)])
        errors.append(
            max(relative(fields["electric"][0, 0], exact), relative(fields["magnetic"][0, 0], exact_magnetic))
        )
    assert all(1.9 < order < 2.1 for order in orders(errors, resolutions)), errors


def test_cavity_modes_swing_at_their_frequency():
    # E_z = sin(πmx) sin(πny) cos(ωt), ω = π√(m² + n²), between conductors: of second order in h, and on the grid
    # exactly at sin²(ωτ/2)/τ² = Σ sin²(k h/2)/h².
    resolutions, errors = (8, 16, 32), []
    m, n = 2, 1
    exact = math.pi * math.hypot(m, n)
    for cells in resolutions:
        solver = create("maxwell3d_yee", resolution=(cells, cells, 4), size=(1, 1, 4 / cells), dt=0.5 / cells,
                        boundary="conductor", amplitude=0.0)  # fmt: skip
        h, tau = 1 / cells, solver.dt
        stiffness = sum((math.sin(math.pi * j * h / 2) / h) ** 2 for j in (m, n))
        omega = 2 / tau * math.asin(tau * math.sqrt(stiffness))
        start = empty(solver)
        x, y, _ = torch.meshgrid(*solver.yee.positions((2,)), indexing="ij")
        mode = torch.sin(math.pi * m * x) * torch.sin(math.pi * n * y)
        edges = solver.yee.zeros(1, mode[None])
        edges[2] += mode
        faces = solver.yee.zeros(2, mode[None])
        solver.yee.add_wedge(faces, edges, 1, -tau / 2)
        state = solver.with_fields(start, edges, faces)
        for turn in (1, 2):
            state = advanced(solver, steps=cells, state=state)
            time = tau * cells * turn
            assert float((solver.edges(state)[2][0] - math.cos(omega * time) * mode).abs().max()) < 1e-12
            assert max(float(e.abs().max()) for e in solver.edges(state)[:2]) < 1e-12
        errors.append(abs(omega / exact - 1))
    assert all(1.9 < order < 2.1 for order in orders(errors, resolutions)), errors


def test_a_mode_of_all_components_between_conductors_converges_with_order_two():
    # E_i = a_i cos(πk_i x_i) Π_j≠i sin(πk_j x_j) cos(ωt), a·k = 0.
    resolutions, errors = (8, 16, 32), []
    k, a = (1, 2, 1), (3.0, -1.0, -1.0)
    omega = math.pi * math.sqrt(sum(x * x for x in k))

    def mode(blade, x):
        waves = [(torch.cos if i in blade else torch.sin)(math.pi * k[i] * x[i]) for i in range(3)]
        return math.prod(waves)

    for n in resolutions:
        solver = create("maxwell3d_yee", resolution=n, dt=0.5 / n, boundary="conductor", amplitude=0.0)

        def electric(blade, x, t=0.0):
            return a[blade[0]] * mode(blade, x) * math.cos(omega * t)

        def magnetic(blade, x, t):
            i, j = blade  # ∂_i E_j = πk_i a_j times the mode of the face
            return -math.pi * (k[i] * a[j] - k[j] * a[i]) / omega * math.sin(omega * t) * mode(blade, x)

        state = advanced(solver, steps=n, state=sampled(solver, empty(solver), electric, magnetic))
        fields = solver.spec.unpack(solver.observe(state))
        x, end = solver.grid.coordinates(), n * solver.dt
        exact = torch.stack([electric((i,), x, end) for i in range(3)])
        exact_magnetic = torch.stack([magnetic(blade, x, end) for blade in solver.yee.blades(2)])
        size = math.sqrt(float(exact.square().sum() + exact_magnetic.square().sum()))
        gaps = (fields["electric"][0, 0] - exact).norm(), (fields["magnetic"][0, 0] - exact_magnetic).norm()
        errors.append(float(sum(gaps)) / size)
    assert all(1.85 < order < 2.1 for order in orders(errors, resolutions)), errors


def scattered(n, polarisation, eps=4.0, sharpness=0.13, wave=32.0):
    """Largest errors of r and t (with their phases) when a packet meets a half space of permittivity ``eps`` at 23°.

    The packet is a sum of plane waves exp(i(kx + qy − ωt)); r(k) and t(k) are ratios of Fourier integrals over either
    side of the interface, before and after. Phases are what tells where the interface is.
    """
    length, width = 2.0, 0.5
    h = length / n
    steps = math.ceil(1.1 * math.sqrt(3) / (0.9 * h))
    solver = create("maxwell3d_yee", resolution=(n, n // 4, 4), size=(length, width, 4 * h), dt=1.1 / steps,
                    amplitude=0.0, inclusions={"blocks": 1})  # fmt: skip
    yee, middle = solver.yee, length / 2
    cells = torch.where(solver.grid.coordinates()[0] > middle, eps, 1.0)
    q, k = (
        2 * math.pi / width,
        2 * math.pi / length * torch.arange(1, int(wave * length / math.pi), dtype=torch.float64),
    )
    omega = torch.sqrt(k.square() + q * q)
    packet = torch.exp(-((k - wave) * sharpness).square() / 2 - 0.5j * k)

    def field(factor, x, t):
        u = torch.exp(1j * k * x[0][:, 0, 0, None]) @ (packet * factor * torch.exp(-1j * omega * t))
        return (u[:, None, None] * torch.exp(1j * q * x[1])).real

    if polarisation == "s":  # E_z, B_xz = k/ω E_z, B_yz = q/ω E_z
        factors = {(2,): torch.ones_like(k), (0, 2): k / omega, (1, 2): q / omega}
        shown, grade, place = (2,), 1, 2
    else:  # B_xy, E_x = −q/ω B_xy, E_y = k/ω B_xy
        factors = {(0, 1): torch.ones_like(k), (0,): -q / omega, (1,): k / omega}
        shown, grade, place = (0, 1), 2, 0

    def component(blade, x, t=0.0):
        return field(factors[blade], x, t) if blade in factors else torch.zeros_like(x[0])

    def spectrum(state, at, low, high):
        x, y, _ = yee.positions(shown)
        values = (solver.edges(state) if grade == 1 else solver.faces(state))[place][0, :, :, 0]
        inside = (x > low) & (x < high)
        along = (values * torch.exp(-1j * q * y)).mean(1)[inside]
        return torch.exp(-1j * at[:, None] * (x[inside] - middle)) @ along  # phases counted from the interface

    state = sampled(solver, empty(solver, cells), component, component)
    k1 = torch.linspace(wave - 0.5 / sharpness, wave + 0.5 / sharpness, 5, dtype=torch.float64)
    k2 = torch.sqrt(eps * (k1.square() + q * q) - q * q)
    incident = spectrum(state, k1, 0, middle)
    state = advanced(solver, steps=steps, state=state)
    reflected = spectrum(state, -k1, 0, middle) / incident
    transmitted = spectrum(state, k2, middle, length) / incident * eps * k1 / k2  # dk₂/dk₁ = ε k₁/k₂
    turn = torch.exp(1.1j * torch.sqrt(k1.square() + q * q))  # back to time zero
    one, two = (k1, k2) if polarisation == "s" else (eps * k1, k2)
    exact = (one - two) / (one + two), 2 * one / (one + two)
    return [float((turn * a - b).abs().max()) for a, b in zip((reflected, transmitted), exact, strict=True)]


@pytest.mark.parametrize("polarisation", ["s", "p"])
def test_fresnels_coefficients_at_an_interface_converge_with_order_two(polarisation):
    resolutions = (128, 192, 256)
    for errors in zip(*(scattered(n, polarisation) for n in resolutions), strict=True):
        assert all(1.8 < order < 2.1 for order in orders(errors, resolutions)), errors
        assert errors[-1] < 0.5


# ------------------------------------------------------------------------------------- conservation, symmetry


@pytest.mark.parametrize("options", [{}, {"boundary": "conductor"}, {"permeability": 2.0, "substeps": 2}], ids=str)
def test_energy_and_charges_are_conserved(options):
    solver = create("maxwell3d_yee", resolution=(6, 7, 8), size=(0.9, 1.0, 1.1), dt=0.07, inclusions=BODIES, **options)
    start = state = solver.initial(range(2))

    def charges(state):
        displacement = [
            e * state.values[name]
            for e, name in zip(
                solver.edges(state), ("permittivity_e1", "permittivity_e2", "permittivity_e3"), strict=True
            )
        ]
        electric, magnetic = solver.yee.zeros(0, displacement[0]), solver.yee.zeros(3, displacement[0])
        solver.yee.add_divergence(electric, displacement, 1)
        solver.yee.add_wedge(magnetic, solver.faces(state), 2)
        return max(float(electric[0].abs().max()), float(magnetic[0].abs().max()))

    assert charges(start) < 1e-12
    for _ in range(300):
        state = solver.advance(state)
    assert charges(state) < 2e-11
    assert float((solver.energy(state) / solver.energy(start) - 1).abs().max()) < 1e-13
    assert relative(solver.observe(state), solver.observe(start)) > 0.1


@pytest.mark.parametrize("boundary", ["periodic", "conductor"])
def test_currents_carry_the_charge(boundary):
    # ∇·(εE + P) = 0 at any time, P from the waveform: charge sits at the sheets' edges, and is gone when they end.
    solver = create("maxwell3d_yee", resolution=8, dt=0.06, amplitude=0.0, boundary=boundary, permittivity=2.0,
                    sources={"count": 2, "wavelength": (0.4, 0.5)})  # fmt: skip
    state = solver.initial([0, 1])
    largest = 0.0
    while not solver.sources.silent(state.values["sheets"], state.values["time"]):
        state = solver.advance(state)
        sheets = state.values["sheets"]
        p = polarisation_of(solver.yee, sheets, solver.sources.waveform(sheets, state.values["time"]))
        displacement = [2.0 * e + x for e, x in zip(solver.edges(state), p, strict=True)]
        total, free = (solver.yee.zeros(0, p[0]) for _ in range(2))
        solver.yee.add_divergence(total, displacement, 1)
        solver.yee.add_divergence(free, solver.edges(state), 1)
        assert float(total[0].abs().max()) < 1e-13
        largest = max(largest, float(free[0].abs().max()))
    assert largest > 0.01
    assert float(free[0].abs().max()) < 1e-13
    energy = solver.energy(state)
    assert float(energy.min()) > 1e-8
    assert float((solver.energy(advanced(solver, steps=20, state=state)) / energy - 1).abs().max()) < 1e-13


def test_a_large_sheet_sends_plane_waves_to_both_sides():
    # J = ∂ₜP in a sheet of thickness d: |E| = d/2 |∂ₜP/ε₀| at some distance, the same on both sides.
    solver = create("maxwell3d_yee", resolution=(128, 4, 4), size=(4.0, 0.125, 0.125), dt=0.015, amplitude=0.0,
                    sources={"count": 1, "size": (4, 4), "thickness": 0.05, "wavelength": (0.5, 0.5),
                             "amplitude": (1, 1), "cycles": None})  # fmt: skip
    state = next(s for s in (solver.initial([seed]) for seed in range(20)) if float(s.values["sheets"][0, 0, 3]) < 0.1)
    state = advanced(solver, steps=100, state=state)
    fields = solver.spec.unpack(solver.observe(state))
    profile = fields["electric"][0, 0, :, :, 0, 0].norm(dim=0)
    center = int(state.values["sheets"][0, 0, 0] / solver.grid.spacing[0])
    around = profile.roll(64 - center)
    expected = 0.05 / 2 * 2 * math.pi / 0.5
    for side in (around[36:58], around[72:94]):  # a wave and a half each, beyond the first, growing cycle
        assert float(side.max()) == pytest.approx(expected, rel=0.05)
    assert float(fields["electric"][0, 0, 0].abs().max()) < 1e-12  # nothing along the direction of travel


def test_losses_take_energy():
    solver = create("maxwell3d_yee", resolution=8, dt=0.06, conductivity=0.005, inclusions=BODIES)
    energies = torch.stack([solver.energy(advanced(solver, steps=steps)) for steps in (0, 4, 8)])
    assert bool((energies.diff(dim=0) < -0.01).all())
