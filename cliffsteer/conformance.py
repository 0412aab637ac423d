"""check_solver: what every simulator must do, whoever wrote it, checked on one instance.

A dataset, a training run and a hybrid loop rely on it: seeds decide trajectories alone, steps are repeatable, frames
can be continued from, parameters reach the equations, symmetries hold, and bad input is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.symmetry import SignedPermutation

if TYPE_CHECKING:
    from cliffsteer.solvers import Solver, State

_FACTORS = (1.1, 0.9, 2.0, 0.5, -1.0)
_FROM_ZERO = (0.1, 0.01, 1e-4, 1.0)
_NO_CHANGE = 1e-12
_SMALL = 1e-6
"""Step of finite differences, relative."""


def check_solver(
    solver: Solver,
    *,
    symmetry: str | Iterable[SignedPermutation] | None = "lattice",
    restores: bool = True,
    roundtrip: float | None = None,
    differentiable: bool = True,
    changes: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 2,
    tolerance: float = 1e-10,
) -> None:
    """Check that a simulator keeps the contract of ``cliffsteer.solvers.Solver``.

    - ``initial``: shapes, float64, one entry per parameter field; each trajectory depends on its own seed alone, bit by
      bit, neither on the others nor on torch's global generator, which is left alone, and other seeds give others.
    - ``advance``: repeatable bit by bit, leaves its input alone, keeps trajectories apart, stays finite.
    - ``observe``: shape and dtype of frames; zero on blades that the spec does not declare.
    - ``restore``: ``observe(restore(frames))`` is ``frames``, with the parameters given.
    - ``step``: equals ``observe(advance(restore(frames)))``, reads the last frame only, keeps the dtype.
    - Every parameter field changes the output, of its own trajectory only.
    - Symmetries of the grid, with parameters turned along, commute with ``step``.
    - The gradient of ``step`` in frames and parameters is that of finite differences.
    - Frames with NaN or of a wrong shape and unknown parameters end in a ValueError.

    Args:
        solver: a small one, a few thousand cells, for a quick check.
        symmetry: "lattice": all signed permutations of axes that keep metric and grid; the elements themselves, where
            the system has fewer symmetries; None for no check.
        restores: False for a solver whose frames do not tell its state, and whose ``restore`` therefore raises a
            ValueError; what needs it is left out.
        roundtrip: largest relative error of ``observe(restore(frames))``, where frames are averages of a finer state
            and cannot be restored exactly; default: ``tolerance``.
        differentiable: False for a solver that computes outside torch, or whose solves give no gradient.
        changes: values of parameter fields to try; the others are scaled by a few factors until one is accepted.
        seeds: at least two, different.
        steps: how many times the initial states are advanced before frames are checked.
        tolerance: largest relative error where bits may differ.

    Raises:
        AssertionError: one sentence on the first thing that fails.
        ValueError: ``seeds``, ``steps`` or ``changes`` make no sense.

    Example:
        >>> from cliffsteer.solvers import create
        >>> check_solver(create("wave", resolution=8, scale=0.5))
    """
    if len(set(seeds)) < 2:
        raise ValueError(f"`seeds` (={tuple(seeds)}) must hold two different ones, at least.")
    if steps < 1:
        raise ValueError(f"`steps` (={steps}) must be at least 1.")
    with torch.no_grad():
        check = _Check(solver, tuple(seeds), tolerance)
        check.declaration()
        unknown = sorted(set(changes or {}) - {field.name for field in solver.spec.parameters})
        if unknown:
            raise ValueError(f"`changes` names {unknown[0]!r}, which is no parameter field of {solver.spec}.")
        state = check.initial()
        for _ in range(steps):
            state = check.advance(state)
        frames = check.observe(state)
        if not restores:
            check.refuses_to_restore(frames)
            return
        check.restore(frames, state.parameters, tolerance if roundtrip is None else roundtrip)
        check.step(frames, state.parameters)
        accepted = check.parameters(frames, state.parameters, dict(changes or {}))
        if differentiable:
            check.gradient(frames, accepted)
        if symmetry is not None:
            check.symmetry(frames, state.parameters, symmetry)
        check.bad_input(frames)


class _Check:
    """The checks of one solver; the public methods below ``close`` are one each."""

    def __init__(self, solver: Solver, seeds: tuple[int, ...], tolerance: float):
        self.solver, self.seeds, self.tolerance = solver, seeds, tolerance
        self.name = getattr(solver, "name", type(solver).__name__)

    def require(self, condition: bool, sentence: str) -> None:
        """Raise an AssertionError with the solver's name and this sentence unless the condition holds."""
        if not condition:
            raise AssertionError(f"solver {self.name!r}: {sentence}.")

    def call(self, method: str, *arguments: Any) -> Any:
        """The result of a method; what it raises becomes a failure."""
        try:
            return getattr(self.solver, method)(*arguments)
        except Exception as error:
            raise AssertionError(f"solver {self.name!r}: `{method}` raised {error!r}.") from error

    def close(self, a: Tensor, b: Tensor) -> bool:
        """Whether two tensors agree to the tolerance, relative to the second."""
        return a.shape == b.shape and float((a - b).norm()) <= self.tolerance * float(b.norm())

    def declaration(self) -> None:
        """Spec, grid, dt and history are there and fit each other."""
        solver = self.solver
        for name in ("spec", "grid", "dt", "history", "initial", "advance", "observe", "restore", "step"):
            self.require(hasattr(solver, name), f"it has no `{name}`")
        self.require(isinstance(solver.spec, FieldSpec), f"`spec` (={solver.spec!r}) is no FieldSpec")
        self.require(isinstance(solver.grid, Grid), f"`grid` (={solver.grid!r}) is no Grid")
        positive = isinstance(solver.dt, int | float) and 0 < solver.dt < math.inf
        self.require(positive, f"`dt` (={solver.dt!r}) is no positive number")
        self.require(solver.history == 1, f"`history` (={solver.history!r}) is not 1, as a solver reads one frame")
        axes, algebra = solver.grid.dim, solver.spec.algebra
        self.require(axes == algebra.dim, f"`grid` has {axes} axes, but {algebra} of `spec` needs {algebra.dim}")

    def initial(self) -> State:
        """Initial states: their form, and that each depends on its own seed alone. Returns them."""
        state = self.call("initial", list(self.seeds))
        self._form("initial", state)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed() % 1000 + 1)
            before = torch.get_rng_state()
            again = self.call("initial", list(self.seeds))
            kept = torch.equal(torch.get_rng_state(), before)
        self._same(again, state, "`initial` gives other states for the same seeds, or with another global seed")
        self.require(kept, "`initial` changes torch's global random state: draw from the generator of each trajectory")
        for i, seed in enumerate(self.seeds):
            alone = self.call("initial", [seed])
            self._same(alone, _row(state, i), "`initial` gives other states for a seed when others stand beside it")
        first, other = 0, next(i for i, seed in enumerate(self.seeds) if seed != self.seeds[0])
        differ = any(not torch.equal(value[first], value[other]) for value in state.values.values())
        self.require(
            differ, f"`initial` gives the same state for the seeds {self.seeds[first]} and {self.seeds[other]}"
        )
        return state

    def advance(self, state: State) -> State:
        """The next states: repeatable, finite, each trajectory by itself, the input left alone. Returns them."""
        before = _cloned(state)
        later = self.call("advance", state)
        self._same(state, before, "`advance` changes the state that it is given")
        self._form("advance", later)
        self._same(self.call("advance", before), later, "`advance` gives another result when it is called again")
        for i, seed in enumerate(self.seeds):
            alone = self.call("advance", _row(before, i))
            for name, value in alone.values.items():
                same = self.close(value.to(torch.complex128), later.values[name][i : i + 1].to(torch.complex128))
                self.require(same, f"`advance` gives another `{name}` for seed {seed} when others stand beside it")
        kept = all(torch.equal(later.parameters[name], value) for name, value in state.parameters.items())
        self.require(kept, "`advance` changes a parameter, which is constant in time")
        return later

    def observe(self, state: State) -> Tensor:
        """Frames of a state: their form, and zero where no field is. Returns them."""
        before = _cloned(state)
        frames = self.call("observe", state)
        self._same(state, before, "`observe` changes the state that it is given")
        self._frames("observe", frames, torch.float64)
        return frames

    def refuses_to_restore(self, frames: Tensor) -> None:
        """``restore`` says that frames do not suffice."""
        try:
            self.solver.restore(frames, None)
        except ValueError:
            return
        except Exception as error:
            raise AssertionError(f"solver {self.name!r}: `restore` raised {error!r}, not a ValueError.") from error
        raise AssertionError(f"solver {self.name!r}: `restore` takes frames: check it with restores=True.")

    def restore(self, frames: Tensor, parameters: Mapping[str, Tensor], tolerance: float) -> None:
        """A restored state shows the frames it came from, and has the parameters it was given."""
        state = self.call("restore", frames, parameters)
        self._form("restore", state)
        for name, value in parameters.items():
            self.require(torch.equal(state.parameters[name], value), f"`restore` does not keep parameter `{name}`")
        shown = self.call("observe", state)
        self._frames("observe", shown, torch.float64)
        error = float((shown - frames).norm() / frames.norm().clamp_min(torch.finfo(torch.float64).tiny))
        self.require(
            error <= tolerance, f"`observe(restore(frames))` is off `frames` by {error:.1e}, more than {tolerance:.0e}"
        )

    def step(self, frames: Tensor, parameters: Mapping[str, Tensor]) -> None:
        """A step is observe(advance(restore)), of the last frame, in the dtype of the frames."""
        before = frames.clone()
        found = self.call("step", frames, parameters)
        self.require(torch.equal(frames, before), "`step` changes the frames that it is given")
        self._frames("step", found, torch.float64)
        expected = self.solver.observe(self.solver.advance(self.solver.restore(frames, parameters)))
        self.require(torch.equal(found, expected), "`step` is not observe(advance(restore(frames)))")
        two = self.call("step", torch.cat([frames.flip(0), frames], 1), parameters)
        self.require(torch.equal(two, found), "`step` of two frames is not that of the last one")
        self._frames("step", self.call("step", frames.float(), parameters), torch.float32)

    def parameters(
        self, frames: Tensor, parameters: Mapping[str, Tensor], changes: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Every parameter field changes the step of its own trajectory, and of no other.

        Returns:
            The parameters, with another value of each, which the solver takes, for the first trajectory.
        """
        reference, accepted = self.call("step", frames, parameters), dict(parameters)
        for name, value in parameters.items():
            if name in changes:
                given = torch.as_tensor(changes[name], dtype=torch.float64).expand_as(value[:1])
                candidates: Iterator[Tensor] = iter([given])
            else:
                candidates = _other_values(value[:1])
            moved, refusal = False, None
            while not moved and (other := next(candidates, None)) is not None:
                try:
                    out = self.solver.step(frames, {**parameters, name: torch.cat([other, value[1:]])})
                except ValueError as error:
                    refusal = error
                    continue
                accepted[name] = torch.cat([other, value[1:]])
                moved = float((out[0] - reference[0]).norm()) > _NO_CHANGE * float(reference[0].norm())
                refusal = None
                apart = self.close(out[1:], reference[1:])
                self.require(apart, f"parameter `{name}` of one trajectory changes `step` of another")
            self.require(
                refusal is None,
                f"every other value of parameter `{name}` is refused ({refusal}): give one in `changes`",
            )
            self.require(moved, f"parameter `{name}` does not change `step`")
        return accepted

    def gradient(self, frames: Tensor, parameters: Mapping[str, Tensor]) -> None:
        """The slope of a step of the first trajectory, in a random direction of frames and of each parameter."""
        generator = torch.Generator().manual_seed(0)
        point = {"frames": frames[:1], **{name: value[:1] for name, value in parameters.items()}}
        inside = self.solver.spec.occupied.view(-1, *[1] * self.solver.grid.dim)
        weights = torch.randn(point["frames"].shape, generator=generator, dtype=torch.float64) * inside
        size = float(weights.norm() * point["frames"].norm())

        def value(at: Mapping[str, Tensor]) -> Tensor:
            given = {name: x for name, x in at.items() if name != "frames"}
            return (self.solver.step(at["frames"], given) * weights).sum()

        with torch.enable_grad():
            learned = {name: x.clone().requires_grad_() for name, x in point.items()}
            out = self._differentiated(value, learned)
        for (name, x), found in zip(point.items(), out, strict=True):
            direction = torch.randn(x.shape, generator=generator, dtype=torch.float64) * (x.square().mean().sqrt() or 1)
            direction = direction * inside if name == "frames" else direction
            try:
                up, down = (float(value({**point, name: x + h * direction})) for h in (_SMALL, -_SMALL))
            except ValueError:  # a parameter of certain values, such as whole waves
                continue
            slope, true = float((found * direction).sum()), (up - down) / (2 * _SMALL)
            self.require(
                abs(slope - true) <= 1e-4 * abs(true) + 1e-8 * size,
                f"the gradient of `step` in `{name}` gives a slope of {slope:.6g}, finite differences {true:.6g};"
                " with differentiable=False it is not checked",
            )

    def _differentiated(self, value: Callable[..., Tensor], at: Mapping[str, Tensor]) -> Sequence[Tensor]:
        try:
            found = torch.autograd.grad(value(at), list(at.values()), allow_unused=True)
        except RuntimeError as error:
            raise AssertionError(
                f"solver {self.name!r}: `step` has no gradient ({error}); with differentiable=False none is asked for."
            ) from error
        return [torch.zeros_like(x) if g is None else g for g, x in zip(found, at.values(), strict=True)]

    def symmetry(
        self, frames: Tensor, parameters: Mapping[str, Tensor], group: str | Iterable[SignedPermutation]
    ) -> None:
        """A step commutes with the group, parameters turned along."""
        from cliffsteer.testing import assert_equivariant

        spec, grid = self.solver.spec, self.solver.grid
        packed = spec.pack_parameters(parameters, len(frames), torch.float64)
        constant = packed[:, None, :].reshape(len(frames), 1, -1, *[1] * grid.dim).expand(-1, -1, -1, *grid.shape)

        def step(x: Tensor) -> Tensor:
            turned = x[:, 0, spec.n_blades :].flatten(2)[..., 0]
            return self.solver.step(x[:, :, : spec.n_blades], spec.unpack_parameters(turned))

        try:
            x = torch.cat([frames, constant], 2)
            assert_equivariant(step, x, spec.algebra, group=group, grid=grid, tolerance=self.tolerance)
        except AssertionError as error:
            raise AssertionError(f"solver {self.name!r}: `step` with parameters turned along is {error}.") from error

    def bad_input(self, frames: Tensor) -> None:
        """What cannot be stepped from ends in a ValueError."""
        holed = frames.clone()
        field = int(self.solver.spec.occupied.nonzero()[0])
        holed[(0, -1, field, *[0] * self.solver.grid.dim)] = math.nan
        cases = {
            "frames with NaN": (holed, None),
            "frames with infinite values": (torch.where(holed.isnan(), math.inf, holed), None),
            "frames of another grid": (torch.cat([frames, frames], -1), None),
            "frames with a blade too few": (frames[:, :, 1:], None),
            "frames without a time axis": (frames[:, 0], None),
            "no frames": (frames[:, :0], None),
            "an unknown parameter": (frames, {"no such parameter": 1.0}),
        }
        for what, (given, parameters) in cases.items():
            try:
                self.solver.step(given, parameters)
            except ValueError:
                continue
            except Exception as error:
                raise AssertionError(
                    f"solver {self.name!r}: `step` meets {what} with {error!r}, no ValueError."
                ) from error
            raise AssertionError(f"solver {self.name!r}: `step` does not refuse {what} with a ValueError.")

    def _frames(self, method: str, frames: Tensor, dtype: torch.dtype) -> None:
        spec, grid = self.solver.spec, self.solver.grid
        shape = (len(self.seeds), 1, spec.n_blades, *grid.shape)
        found = tuple(frames.shape)
        self.require(found == shape, f"`{method}` gives frames of shape {found}, not {shape}: (batch, 1, blade, *grid)")
        self.require(frames.dtype == dtype, f"`{method}` gives frames in {frames.dtype}, not {dtype}")
        self.require(bool(frames.isfinite().all()), f"`{method}` gives frames with NaN or infinite values")
        stray = frames[:, :, ~spec.occupied].abs().flatten(3).amax((0, 1, 3)) if not spec.occupied.all() else None
        clean = stray is None or not bool(stray.any())
        self.require(clean, f"`{method}` gives frames that are not zero on blades that hold no field of `spec`")

    def _form(self, method: str, state: State) -> None:
        """Names, shapes and dtypes of a state."""
        count, spec = len(self.seeds), self.solver.spec
        for name, value in state.values.items():
            told = f"`{name}` in the state of `{method}`"
            self.require(isinstance(value, Tensor), f"{told} is no tensor, but a {type(value).__name__}")
            self.require(
                value.shape[:1] == (count,), f"{told} has shape {tuple(value.shape)}: batch ({count}) is first"
            )
            if value.is_floating_point() or value.is_complex():
                self.require(value.dtype in (torch.float64, torch.complex128), f"{told} is {value.dtype}, not float64")
            self.require(bool(value.isfinite().all()), f"{told} holds NaN or infinite values")
        expected = {field.name: (count, spec.slots[field.name].size) for field in spec.parameters}
        found = {name: tuple(value.shape) for name, value in state.parameters.items()}
        self.require(found == expected, f"`{method}` gives parameters {found}, but `spec` declares {expected}")
        for name, value in state.parameters.items():
            self.require(
                value.dtype == torch.float64, f"parameter `{name}` of `{method}` is {value.dtype}, not float64"
            )

    def _same(self, a: State, b: State, sentence: str) -> None:
        """Two states are the same bit by bit."""
        for left, right in ((a.values, b.values), (a.parameters, b.parameters)):
            for name, value in right.items():
                self.require(name in left and torch.equal(left[name], value), f"{sentence} (see `{name}`)")


def _row(state: State, i: int) -> State:
    return _mapped(state, lambda value: value[i : i + 1])


def _cloned(state: State) -> State:
    return _mapped(state, torch.clone)


def _mapped(state: State, function: Callable[[Tensor], Tensor]) -> State:
    groups = (state.values, state.parameters)
    return type(state)(*({name: function(value) for name, value in group.items()} for group in groups))


def _other_values(value: Tensor) -> Iterator[Tensor]:
    """Values of a parameter field to try in place of this one."""
    if bool(value.any()):
        yield from (value * factor for factor in _FACTORS)
    else:
        yield from (torch.full_like(value, number) for number in _FROM_ZERO)
