"""`at`: a trained surrogate on another grid or with another time step, where the mathematics allows it."""

from __future__ import annotations

import copy
import logging
import math

import torch
from torch import Tensor, nn

from cliffsteer.admissible import create_projections
from cliffsteer.coupling.transfer import require_same_domain, transfer
from cliffsteer.coupling.turns import Repeated
from cliffsteer.grid import Grid
from cliffsteer.nn import CliffordSteerableConv, MVLinear, SteerableSpectralConv
from cliffsteer.nn.kernels import CompleteKernel
from cliffsteer.nn.norm import reads_whole_field
from cliffsteer.nn.padding import Padding
from cliffsteer.stepper import Parameters, Stepper
from cliffsteer.surrogate import Surrogate

logger = logging.getLogger(__name__)


def at(
    surrogate: Surrogate,
    grid: Grid | None = None,
    dt: float | None = None,
    frames: Tensor | None = None,
    parameters: Parameters | None = None,
    tolerance: float = 0.1,
) -> Stepper:
    """A surrogate elsewhere than it was trained.

    - **More or fewer cells of the same size**: networks of convolutions, which see a neighbourhood and not the domain.
      Exact without norms over all points, where the solution is as much like the training data as before; with them
      (the default) as far as fields are as strong on average, which is warned of. Spectral layers know the domain and
      are refused.
    - **Finer or coarser cells of the same domain**: spectral layers keep their waves. Complete kernels that are smooth
      functions of position are sampled anew (`CompleteKernel.resampled`); their size k becomes (k − 1) h/h' + 1, which
      must be odd and whole. How well that works depends on the weights, so it is measured on ``frames``: the difference
      between the step there and the step here, brought there, relative to the change. Free kernels are refused.
    - **Whole multiples of the time step**: several steps as one (`Repeated`).
    - **Domains and time steps scaled together**: not here, see `Rescaled`.

    Args:
        surrogate: the trained surrogate; it is left as it is.
        grid: the other grid.
        dt: the other time step.
        frames: typical frames on the surrogate's grid, (batch, time, blade, *grid), for another size of cells.
        parameters: their parameter fields.
        tolerance: largest difference that is accepted; it is logged.

    Returns:
        A Surrogate, or a Stepper around one.

    Raises:
        ValueError: what the mathematics does not allow, with the reason, or a difference beyond the tolerance.
    """
    out: Stepper = surrogate
    if dt is not None and not 0 < dt < math.inf:
        raise ValueError(f"`dt` (={dt}) must be a positive number.")
    if grid is not None and grid != surrogate.grid:
        if not isinstance(surrogate, Surrogate):
            raise ValueError(
                f"`surrogate` is a {type(surrogate).__name__}, whose network cannot be taken to another `grid`: use"
                " Refined, or the Surrogate that it was made from."
            )
        out = _on_grid(surrogate, grid)
        if not _same_cells(surrogate.grid, grid):
            _measure(surrogate, out, frames, parameters, tolerance)
    if dt is None or math.isclose(dt, surrogate.dt, rel_tol=1e-9):
        return out
    times = round(dt / surrogate.dt)
    if times < 1 or not math.isclose(times * surrogate.dt, dt, rel_tol=1e-9):
        raise ValueError(
            f"`dt` (={dt:g}) is no whole multiple of the surrogate's, {surrogate.dt:g}: it has learned one step and"
            " cannot take a part of it; where lengths scale along, use Rescaled."
        )
    return Repeated(out, times)


def _same_cells(grid: Grid, target: Grid) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(grid.spacing, target.spacing, strict=True))


def _measure(
    here: Surrogate, there: Surrogate, frames: Tensor | None, parameters: Parameters | None, tolerance: float
) -> None:
    """Log how much the step differs on the other grid, and raise a ValueError when it is too much."""
    if frames is None:
        raise ValueError("`frames` is missing: at another size of cells the error has to be measured, on typical ones.")
    spec = here.spec
    with torch.no_grad():
        expected = transfer(here.step(frames, parameters), spec, here.grid, there.grid)
        start = transfer(frames, spec, here.grid, there.grid)
        found = there.step(start, parameters)
        error = float((found - expected).norm() / (expected - start[:, -1:]).norm())
    if not error <= tolerance:
        raise ValueError(
            f"`grid` (={there.grid.shape}) changes the step by {error:.2g} of the change in it, more than `tolerance`"
            f" (={tolerance:g}): train on that grid, or use Refined."
        )
    logger.info("at %s cells the step differs by %.2g of the change in it", there.grid.shape, error)


def _on_grid(surrogate: Surrogate, grid: Grid) -> Surrogate:
    if grid.boundary != surrogate.grid.boundary or grid.unit != surrogate.grid.unit:
        raise ValueError(
            f"`grid` has boundary {grid.boundary} in {grid.unit}, the surrogate {surrogate.grid.boundary} in"
            f" {surrogate.grid.unit}: what happens at walls is learned."
        )
    if any(getattr(module, "frozen", False) for module in surrogate.network.modules()):
        raise ValueError("`surrogate` is frozen, for one grid: use the one it was made from.")
    other = copy.deepcopy(surrogate)
    if _same_cells(surrogate.grid, grid):
        _refuse_spectral(other.network)
        if reads_whole_field(other.network):
            logger.warning(
                "The network has norms over all points, which see the domain of %s cells: its step on %s is the same"
                " only as far as the fields are as strong there on average.",
                *(surrogate.grid.shape, grid.shape),
            )
    else:
        try:
            require_same_domain(surrogate.grid, grid)
        except ValueError:
            raise ValueError(
                f"`grid` has cells of {grid.spacing} and a domain of {grid.extent}, the surrogate"
                f" {surrogate.grid.spacing} and {surrogate.grid.extent}: one of the two must stay; where times"
                " scale along, use Rescaled."
            ) from None
        _resample(other.network, surrogate.grid, grid)
    other.grid = grid
    other.projections = create_projections(other.projection_names, other.spec, grid).to(other.occupied.device)
    _try_out(other)
    return other


def _refuse_spectral(network: nn.Module) -> None:
    if any(hasattr(module, "modes") and not isinstance(module, Padding) for module in network.modules()):
        raise ValueError(
            "`grid` changes the domain, but the network has spectral layers, whose waves are counted per domain: it can"
            " go to other resolutions of its own domain only."
        )


def _resample(network: nn.Module, grid: Grid, target: Grid) -> None:
    """Sample every kernel of a network anew for another resolution of the domain."""
    ratios = {h / new for h, new in zip(grid.spacing, target.spacing, strict=True)}
    ratio = ratios.pop()
    if any(not math.isclose(ratio, r, rel_tol=1e-9) for r in ratios):
        raise ValueError(f"`grid` (={target.shape}) refines axes differently: kernels are of one size along all axes.")
    for name, module in list(network.named_modules()):
        if _has_free_kernel(module, grid.dim):
            raise ValueError(
                f"`grid` changes the size of cells, but {name} has a free kernel, which says nothing between its"
                " points: train on the other grid, or use Refined."
            )
        if not isinstance(module, CliffordSteerableConv) or module.kernel_size == 1:
            continue
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, _resampled(name, module, ratio))


def _has_free_kernel(module: nn.Module, dim: int) -> bool:
    """Whether a module has a weight of its own with kernel points on its last axes."""
    weight = module._parameters.get("weight")
    if weight is None or isinstance(module, (MVLinear, SteerableSpectralConv)) or hasattr(module, "radial"):
        return False
    return weight.ndim == dim + 2 and max(weight.shape[2:]) > 1


def _resampled(name: str, conv: CliffordSteerableConv, ratio: float) -> CliffordSteerableConv:
    kernel, size = conv.kernel, (conv.kernel_size - 1) * ratio + 1
    if not isinstance(kernel, CompleteKernel) or kernel.radial_kind != "smooth":
        raise ValueError(
            f"`grid` changes the size of cells, but the kernel of {name} is no smooth function of position (`kernel`"
            " 'complete' with `radial` 'smooth'): train on the other grid, or use Refined."
        )
    if conv.stride != 1 or conv.padding.ghosts is None:
        raise ValueError(f"`grid` changes the size of cells, but {name} has a stride or no padding.")
    if not math.isclose(size, round(size), rel_tol=1e-9) or round(size) % 2 == 0 or round(size) < 3:
        raise ValueError(
            f"`grid` makes the kernel of {name} {size:.4g} points wide, which must be odd, whole and at least 3:"
            f" kernels of k points go to (k − 1)·{ratio:.4g} + 1."
        )
    size = round(size)
    made = CliffordSteerableConv(
        conv.algebra,
        conv.in_channels,
        conv.out_channels,
        size,
        kernel=kernel.resampled(size),
        dilation=conv.dilation,
        padding=conv.padding.ghosts.modes,
        bias=conv.bias is not None,
        strategy=conv.strategy,
    ).to(next(conv.parameters()))
    if conv.bias is not None:
        with torch.no_grad():
            made.bias.copy_(conv.bias)
    return made.train(conv.training).requires_grad_(next(conv.parameters()).requires_grad)


def _try_out(surrogate: Surrogate) -> None:
    """Predict once, so that a grid that is too small is refused here."""
    frames = torch.zeros(1, surrogate.history, surrogate.spec.n_blades, *surrogate.grid.shape)
    options = {"dtype": surrogate.dtype, "device": surrogate.occupied.device}
    with torch.no_grad():
        try:
            surrogate(frames.to(**options), torch.zeros(1, surrogate.spec.n_parameter_blades, **options))
        except RuntimeError as error:
            text = str(error).partition("\n")[0].rstrip(".")
            raise ValueError(f"`grid` (={surrogate.grid.shape}) does not suit the network: {text}.") from error
