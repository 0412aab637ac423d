"""How exactly a trained surrogate keeps its symmetries, layer by layer, and what breaks those that it does not keep.

Every layer f is fed the input x that it meets inside the network, turned by every lattice symmetry g:

    error(f, g) = ‖f(gx) − g f(x)‖ / max(‖f(x)‖, ‖g f(x)‖)

In float64 a layer that commutes with g has an error of rounding, about 1e-15, and what float32 adds is *precision*. An
error that is gone away from the walls, where no padding is read, is the *padding*'s. One that stays is the *layer*'s
own, or the *lattice*'s where strides or even kernels leave it no centre. Elements that the grid does not have, as its
sides differ in length, spacing or boundary, are measured beside: the network may have them nevertheless.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.algebra import CliffordAlgebra
from cliffsteer.elements import Element, grid_elements
from cliffsteer.kernel_symmetry import Turn, function_errors, is_fixed, sampled_errors, turns, why_no_function
from cliffsteer.layer_errors import EXACT, Row, errors_of, is_part, kernels_of, layer_errors, relative_error
from cliffsteer.models.resnet import PlainConv
from cliffsteer.nn.padding import MODES, Padding, padding_modes
from cliffsteer.stepper import check_frames
from cliffsteer.surrogate import Surrogate

FORMAT_VERSION = 1
PADDINGS = ("grid", *MODES, "one-sided")
"""What a network's padding can be replaced by: what the grid's boundary asks for, one mode everywhere, or a padding
that differs on the two sides of each axis, which must break reflections."""
_ONE_SIDED = ("zeros", "symmetric")


def diagnose(
    surrogate: Surrogate,
    frames: Tensor | None = None,
    parameters: Tensor | None = None,
    elements: str = "auto",
    paddings: Sequence[str] = PADDINGS,
    wavelength: float = 8.0,
    generator: torch.Generator | None = None,
) -> dict[str, Any]:
    """Measure a surrogate, its layers, its kernels, and what other paddings would do to it.

    Args:
        surrogate: a trained surrogate; copies of it are measured, in float64 and in float32.
        frames: a history, (batch, time, blade, *grid), in physical units; random fields by default.
        parameters: packed parameters, (batch, blade); by default random ones beside random fields, else the spec's own.
        elements: as for `grid_elements`.
        paddings: those of `PADDINGS` that the network is tried with in place of its own.
        wavelength: of the plane waves that sampled kernels are tried with, in cells.
        generator: source of random fields, points and waves; seeded with 0 by default.

    Returns:
        JSON-ready: "elements" and "layers" with an error for each element in "float64", in float64 away from the walls
        in "interior" (None where no cell is), and in "float32", the "worst" of them by kind of element, and a "cause";
        "turns" and "kernels" with the errors under rotations and boosts; "paddings"; and in "notes" what was not
        measured, and why.

    Raises:
        ValueError: an unknown choice of elements or padding, a wavelength that is not positive, or fields that do not
            fit.
    """
    for mode in paddings:
        if mode not in PADDINGS:
            raise ValueError(f"`paddings` (={mode!r}) must be of {', '.join(map(repr, PADDINGS))}.")
    if not wavelength > 0:
        raise ValueError(f"`wavelength` (={wavelength}) must be positive, in cells.")
    if frames is not None:
        check_frames(surrogate, frames)
    spec, generator = surrogate.spec, generator or torch.Generator().manual_seed(0)
    source = "random fields" if frames is None else "given fields"
    if frames is None:
        frames, parameters = random_input(surrogate, generator)
    elif parameters is None:
        parameters = spec.pack_parameters(None, len(frames))
    tried, continuous = grid_elements(spec.algebra, surrogate.grid, elements), turns(spec.algebra)
    double, single = (copy.deepcopy(surrogate).eval().to(dtype) for dtype in (torch.float64, torch.float32))
    inputs = frames[:, -surrogate.history :].to(double.normalization.scale), parameters.to(double.normalization.scale)
    with torch.no_grad():
        rows = layer_errors(double, inputs, tried, continuous)
        rounded = layer_errors(single, tuple(x.float() for x in inputs), tried, [])
        replaced = list(_paddings(double, inputs, tried, paddings))
    for row in rows:
        row["float64"] = row.pop("errors")
        row["float32"] = next(other["errors"] for other in rounded if other["name"] == row["name"])
        row["worst"] = _summary(row, tried)
    for row in rows:
        row["cause"], row["because"] = _cause(row, rows, tried, double.network)
    kernels = [
        _kernel(name, kernel, continuous, wavelength, generator) for name, kernel in kernels_of(double.network).items()
    ]
    return {
        "format_version": FORMAT_VERSION,
        "input": source,
        "grid": surrogate.grid.to_dict(),
        "tolerance": EXACT,
        "elements": [{"name": e.name, "translation": e.is_translation, "missing": e.missing} for e in tried],
        "layers": rows,
        "turns": [{"name": g.name, "kind": g.kind} for g in continuous],
        "wavelength": wavelength,
        "kernels": kernels,
        "paddings": replaced,
        "notes": [*_unmeasured(double.network, rows), *dict.fromkeys(k["note"] for k in kernels if k["note"])],
    }


def random_input(surrogate: Surrogate, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """A random history and random packed parameters of one sample, of the size of the training data."""
    spec, scales = surrogate.spec, surrogate.normalization
    noise = torch.randn(1, surrogate.history, spec.n_blades, *surrogate.grid.shape, generator=generator)
    frames = scales.denormalize(noise.to(scales.scale)).masked_fill(~surrogate.occupied, 0)
    packed = torch.zeros(1, spec.n_parameter_blades)
    for field in spec.parameters:
        slot = spec.slots[field.name]
        packed[:, slot.start : slot.stop] = torch.randn(1, slot.size, generator=generator)
    return frames, packed.to(scales.parameter) * scales.parameter


# ------------------------------------------------------------------------------------------- causes, private


def _cause(row: Row, rows: Sequence[Row], elements: Sequence[Element], network: nn.Module) -> tuple[str, str]:
    """What breaks a symmetry of the grid in this layer: a word and a sentence."""
    due = [i for i, g in enumerate(elements) if _is_due(row, i, g)]
    bad = [i for i in due if not row["float64"][i] <= EXACT]
    if not due:
        return "untested", "the grid has no symmetry that the layer should keep"
    if not bad:
        return "exact", f"keeps the {len(due)} symmetries of grid and kernel to rounding"
    first = f"under {elements[bad[0]].name}" + (f" and {len(bad) - 1} more" if len(bad) > 1 else "")
    parts = [other["name"] for other in rows if is_part(other, row) and _is_broken(other, elements)]
    parts = [n for n in parts if not any(other.startswith(f"{n}.") or other != n == "network" for other in parts)]
    if parts:
        return "part", f"broken {first}, by {', '.join(parts)}"
    if any(not math.isfinite(row["float64"][i]) for i in bad):
        return "numbers", f"infinite or not a number {first}"
    interior = [row["interior"][i] for i in bad if row["interior"][i] is not None]
    if interior and max(interior) <= EXACT:
        return "padding", f"broken {first} next to the walls only, up to {row['reach']} cells from them"
    module = network if row["name"] in ("surrogate", "network") else network.get_submodule(row["name"])
    coarse = any(other["rescales"] for other in rows if is_part(other, row))
    if reason := _uneven(module, coarse and all(elements[i].is_translation for i in bad)):
        return "lattice", f"broken {first}: {reason}"
    if not interior:
        return "unclear", f"broken {first}; every cell reads the padding, which may be the cause as well as the layer"
    return "layer", f"broken {first}: this {row['kind']} does not commute with it anywhere on the grid"


def _is_broken(row: Row, elements: Sequence[Element]) -> bool:
    return any(_is_due(row, i, g) and not row["float64"][i] <= EXACT for i, g in enumerate(elements))


def _is_due(row: Row, i: int, g: Element) -> bool:
    """Whether grid and kernels have the i-th element, and it was measured."""
    return g.missing is None and g.name not in row["outside"] and row["float64"][i] is not None


def _uneven(module: nn.Module, shifted: bool) -> str | None:
    """Why the layer's own lattice is not moved to itself; None when it is.

    Args:
        module: the layer.
        shifted: whether shifts by a cell are what it breaks, with coarser grids inside.
    """
    if shifted:
        return "it works on coarser grids too, which know only shifts by several cells"
    for part in module.modules():
        for value in _numbers(getattr(part, "stride", 1)):
            if value > 1:
                return f"a stride of {value} puts its points off the centre of this grid"
        for value in _numbers(getattr(part, "kernel_size", 1)):
            if value % 2 == 0:
                return f"a kernel of even size, {value}, has no centre"
    return None


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,)


def _unmeasured(network: nn.Module, rows: Sequence[Row]) -> Iterator[str]:
    measured = {row["name"] for row in rows}
    missing = [
        name
        for name, module in network.named_modules()
        if name
        and not isinstance(module, Padding)
        and all(isinstance(child, Padding) for child in module.children())
        and not any(name == m or name.startswith(f"{m}.") for m in measured)
    ]
    if missing:
        yield (
            f"{len(missing)} layers ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}) do not map one"
            " multivector field to another, so the group does not act on them: they are measured as parts of the whole."
        )


# ------------------------------------------------------------------------------ kernels, paddings, private


def _kernel(
    name: str, kernel: nn.Module, continuous: Sequence[Turn], wavelength: float, generator: torch.Generator
) -> Row:
    note = why_no_function(kernel)
    known = is_fixed(kernel) and isinstance(getattr(kernel, "algebra", None), CliffordAlgebra)
    return {
        "name": name,
        "kind": type(kernel).__name__,
        "group": getattr(kernel, "group", None),
        "function": None if note else function_errors(kernel, continuous, generator=generator),
        "sampled": sampled_errors(kernel, continuous, wavelength, generator=generator) if known else None,
        "note": note,
    }


def _paddings(
    surrogate: Surrogate, inputs: tuple[Tensor, Tensor], elements: Sequence[Element], modes: Sequence[str]
) -> Iterator[Row]:
    """The whole surrogate, as trained and with other paddings."""
    algebra, (frames, parameters) = surrogate.spec.algebra, inputs
    if not modes or not any(isinstance(module, Padding) for module in surrogate.network.modules()):
        return
    own = surrogate.predict(frames, parameters)
    special = {"grid": surrogate.grid, "one-sided": (_ONE_SIDED,) * algebra.dim}
    for label in ("as trained", *modes):
        pairs = None if label == "as trained" else padding_modes(special.get(label, label), algebra.dim)
        network = surrogate if pairs is None else _with_padding(surrogate, pairs)
        if isinstance(network, str):
            yield {"padding": label, "note": network}
            continue

        def turned(g: Element, network: Surrogate = network) -> Tensor:
            return network.predict(g.act(algebra, frames), g.turn(algebra, parameters))

        try:
            output = network.predict(frames, parameters)
            row = errors_of(label, network.network, turned, output, algebra, elements)
        except RuntimeError as error:
            if not str(error).startswith("`x` has"):  # fewer cells than the padding would repeat
                raise
            yield {"padding": label, "note": str(error)}
            continue
        yield {
            "padding": label,
            **_summary(row | {"float64": row["errors"]}, elements),
            "change": relative_error([output - own, own, output]),
        }


def _with_padding(surrogate: Surrogate, pairs: tuple[tuple[str, str], ...]) -> Surrogate | str:
    """A copy with these modes on each axis, or a sentence that says why there is none."""
    other = copy.deepcopy(surrogate)
    turning = {mode for pair in pairs for mode in pair} & {"mirror", "conductor"}
    for module in list(other.network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Padding):
                if turning and isinstance(module, PlainConv):
                    return f"{min(turning)!r} turns multivectors, and plain channels have none"
                setattr(module, name, Padding(surrogate.spec.algebra, child.width, pairs).to(surrogate.occupied.device))
    return other


def _summary(row: Row, elements: Sequence[Element]) -> dict[str, float | None]:
    """The largest error by kind of element: symmetries of grid and kernel, those the grid lacks, translations."""

    def worst(errors: Sequence[float | None], kind: Callable[[Element], bool]) -> float | None:
        return _worst(e for g, e in zip(elements, errors, strict=True) if g.name not in row["outside"] and kind(g))

    kinds = {
        "symmetries": lambda g: not g.is_translation and g.missing is None,
        "lacking": lambda g: not g.is_translation and g.missing is not None,
        "translations": lambda g: g.is_translation,
    }
    found = {name: worst(row["float64"], kind) for name, kind in kinds.items()}
    found |= {f"{name} interior": worst(row["interior"], kinds[name]) for name in ("symmetries", "translations")}
    return found | ({"symmetries float32": worst(row["float32"], kinds["symmetries"])} if "float32" in row else {})


def _worst(errors: Iterable[float | None]) -> float | None:
    """The largest error, not a number if one is; None if there is none."""
    known = [e for e in errors if e is not None]
    return next((e for e in known if math.isnan(e)), max(known, default=None))
