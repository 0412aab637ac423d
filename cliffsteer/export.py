"""Trained surrogates as programs that run without cliffsteer: in PyTorch alone, or in ONNX Runtime alone."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cliffsteer.fields import Field
from cliffsteer.nn.freeze import freeze
from cliffsteer.projection import CurlFree, DivergenceFree
from cliffsteer.storage import sha256
from cliffsteer.surrogate import Surrogate

FORMAT = "cliffsteer.program"
FORMAT_VERSION = 1
FILES = {"torch": "model.pt2", "onnx": "model.onnx"}
"""The file that holds the program, by format."""

_USAGE = {
    "torch": (
        "import torch",
        "program = torch.export.load('{file}').module()",
        "next_frames = program({arguments})",
    ),
    "onnx": (
        "import onnxruntime",
        "session = onnxruntime.InferenceSession('{file}', providers=['CPUExecutionProvider'])",
        "next_frames, = session.run(None, {{{feeds}}})",
    ),
}


def export(
    surrogate: Surrogate,
    folder: str | Path,
    format: str = "torch",
    strategy: str = "direct",
    any_grid: bool = False,
) -> Path:
    """Write what `Surrogate.forward` computes as a program, and a JSON file that says how to run it.

    The program takes ``frames`` (batch, history, blade, *grid) and, if the system has parameter fields, ``parameters``
    (batch, blade), packed as by `FieldSpec.pack_parameters`, both in physical units; it returns ``next_frames`` (batch,
    future, blade, *grid). Normalisation is inside, and so are the kernels: the network is frozen, see `freeze`. The
    batch may be of any size. The JSON file has the places of the fields among the blades, units, defaults of the
    parameters, the grid, dt, shapes, and the lines of Python that run it.

    Args:
        surrogate: the trained surrogate; it is left as it is.
        folder: where to write `model.pt2` or `model.onnx`, and the same with `.json` added; other files stay.
        format: "torch", for `torch.export.load`, on the device that the surrogate is on; or "onnx", for ONNX Runtime.
        strategy: how the convolutions are carried out, as for `freeze`; "onnx" is always "direct".
        any_grid: let the program take grids of any size, of the same spacing, with strategy "direct".

    Returns:
        The file of the program.

    Raises:
        ValueError: an unknown format, a strategy or a projection that does not go with it, or a network that cannot be
            frozen.
        ImportError: "onnx" without the packages that write it.

    Example:
        >>> from cliffsteer.export import export
        >>> export(Surrogate.from_pretrained("runs/smoke"), "smoke", format="onnx")  # doctest: +SKIP
    """
    if format not in FILES:
        raise ValueError(f"`format` (={format!r}) must be one of {', '.join(map(repr, FILES))}.")
    if strategy != "direct" and (format == "onnx" or any_grid):
        wanted = "`format` 'onnx'" if format == "onnx" else "`any_grid`"
        raise ValueError(f"`strategy` (={strategy!r}) must be 'direct' with {wanted}: a spectrum is for one grid.")
    _require_projections(surrogate, format, any_grid)
    if format == "onnx":
        _require_onnx(surrogate)
    folder, device = Path(folder), torch.device("cpu") if format == "onnx" else surrogate.occupied.device
    program = _program(surrogate, strategy, any_grid, device)
    description = _description(surrogate, format, any_grid) | {"device": str(device)}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
        file = Path(temporary) / FILES[format]
        if format == "onnx":
            _save_onnx(program, file, description["inputs"])
        else:
            torch.export.save(program, file)
        text = json.dumps(description | {"sha256": sha256(file)}, indent=2, allow_nan=False) + "\n"
        file.with_name(f"{file.name}.json").write_text(text, encoding="utf-8")
        for written in sorted(Path(temporary).iterdir(), key=lambda path: path.suffix == ".json"):  # that one last
            written.replace(folder / written.name)
    return folder / FILES[format]


class _FramesOnly(nn.Module):
    """A surrogate without parameter fields."""

    def __init__(self, surrogate: Surrogate):
        super().__init__()
        self.surrogate = surrogate

    def forward(self, frames: Tensor) -> Tensor:
        """The frames that follow."""
        return self.surrogate(frames, frames.new_zeros(frames.shape[0], 0))


def _program(surrogate: Surrogate, strategy: str, any_grid: bool, device: torch.device) -> torch.export.ExportedProgram:
    """The frozen surrogate as a graph on ``device``."""
    spec = surrogate.spec
    options = {"dtype": surrogate.dtype, "device": surrogate.occupied.device}
    inputs = [torch.zeros(2, surrogate.history, spec.n_blades, *surrogate.grid.shape, **options)]
    inputs.append(torch.zeros(2, spec.n_parameter_blades, **options))
    module: nn.Module = freeze(surrogate, strategy, example=None if strategy == "direct" else tuple(inputs))
    batch = torch.export.Dim("batch")
    shapes: dict[str, dict[int, Any]] = {"frames": {0: batch}}
    if any_grid:
        shapes["frames"] |= {3 + axis: torch.export.Dim.DYNAMIC for axis in range(spec.algebra.dim)}
    if spec.parameters:
        shapes["parameters"] = {0: batch}
    else:
        module = _FramesOnly(module)
    example = tuple(x.to(device) for x in inputs[: len(shapes)])
    with torch.no_grad():
        return torch.export.export(module.to(device), example, dynamic_shapes=shapes)


def _save_onnx(program: torch.export.ExportedProgram, file: Path, inputs: list[dict[str, Any]]) -> None:
    shape = inputs[0]["shape"]
    names: dict[str, dict[int, str]] = {entry["name"]: {} for entry in inputs}
    names["frames"] = {axis: size for axis, size in enumerate(shape) if isinstance(size, str)}  # each name once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's, of its own parts
        warnings.simplefilter("ignore", DeprecationWarning)
        made = torch.onnx.export(
            program, dynamo=True, dynamic_shapes=names, output_names=["next_frames"], verbose=False
        )
        made.save(file)


def _require_projections(surrogate: Surrogate, format: str, any_grid: bool) -> None:
    """Raise a ValueError for a projection that the program could not carry out."""
    for name, projection in zip(surrogate.projection_names, surrogate.projections, strict=True):
        if not isinstance(projection, DivergenceFree | CurlFree):
            continue
        if any_grid:
            raise ValueError(f"`any_grid` (=True): {name!r} is for the grid it was made on; leave `any_grid` out.")
        if format == "onnx":
            raise ValueError(
                f"`format` (='onnx'): {name!r} is computed by waves, which ONNX gets none of; take 'torch'."
            )


def _require_onnx(surrogate: Surrogate) -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"`format` 'onnx' needs {' and '.join(missing)}: pip install 'cliffsteer[onnx]'.")
    if surrogate.dtype != torch.float32:
        raise ValueError(
            f"`surrogate` has weights of {surrogate.dtype}, but ONNX Runtime convolves in single precision: export"
            " copy.deepcopy(surrogate).float()."
        )


def _description(surrogate: Surrogate, format: str, any_grid: bool) -> dict[str, Any]:
    """What the JSON file says."""
    import cliffsteer

    spec, dtype = surrogate.spec, str(surrogate.dtype).removeprefix("torch.")
    grid: list[int | str] = [f"n{i + 1}" for i in range(surrogate.grid.dim)] if any_grid else [*surrogate.grid.shape]

    def port(name: str, shape: list[int | str], fields: tuple[Field, ...]) -> dict[str, Any]:
        places = {f.name: [spec.slots[f.name].start, spec.slots[f.name].stop] for f in fields}
        return {"name": name, "shape": ["batch", *shape], "dtype": dtype, "fields": places}

    inputs = [port("frames", [surrogate.history, spec.n_blades, *grid], spec.dynamic)]
    if spec.parameters:
        known = all(f.default is not None for f in spec.parameters)
        default = spec.pack_parameters(None, 1, torch.float64)[0].tolist() if known else None
        inputs.append({**port("parameters", [spec.n_parameter_blades], spec.parameters), "default": default})
    names = [entry["name"] for entry in inputs]
    words = {
        "file": FILES[format],
        "arguments": ", ".join(names),
        "feeds": ", ".join(f"'{name}': {name}" for name in names),
    }
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "cliffsteer_version": cliffsteer.__version__,
        "file": FILES[format],
        "usage": [line.format(**words) for line in _USAGE[format]],
        "inputs": inputs,
        "outputs": [port("next_frames", [surrogate.future, spec.n_blades, *grid], spec.dynamic)],
        "axes": "frames: (batch, time, blade, *grid), oldest first; fields: the blades start..stop of each, in the"
        " units of the spec; blades without a field are zero; blades of a multivector in the order of `blades`",
        "blades": list(spec.algebra.blade_names),
        "spec": spec.to_dict(),
        "grid": surrogate.grid.to_dict(),
        "dt": surrogate.dt,
        "history": surrogate.history,
        "future": surrogate.future,
    }
