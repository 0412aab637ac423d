"""Program: an exported surrogate (torch.export or ONNX) as a Stepper, without the network's code."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliffsteer.fields import FieldSpec
from cliffsteer.grid import Grid
from cliffsteer.stepper import Parameters, check_frames
from cliffsteer.storage import sha256

FORMAT, FORMAT_VERSION = "cliffsteer.program", 1


class Program:
    """What `cliffsteer.export.export` wrote, as a Stepper: it runs in every coupling and every loop.

    Needs PyTorch for a `.pt2` file, and ONNX Runtime besides for an `.onnx` file; Lightning, Hydra or PhiFlow are not
    imported. It runs where it was exported to, ONNX on the CPU, and gives no gradients.

    Args:
        file: `model.pt2` or `model.onnx`, with its `.json` beside it.

    Attributes:
        spec, grid, dt, history, future: those of the surrogate. A program that was exported for any grid has the grid
            of the surrogate until `at` gives it another.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a damaged file, or one of another format.
        ImportError: an ONNX program without ONNX Runtime.

    Example:
        >>> stepper = Program("smoke/model.pt2")  # doctest: +SKIP
        >>> rollout(stepper, frames, steps=10)  # doctest: +SKIP
    """

    def __init__(self, file: str | Path):
        file = Path(file)
        about = file.with_name(f"{file.name}.json")
        for path in (file, about):
            if not path.is_file():
                raise FileNotFoundError(f"`{path}` does not exist: give a file that `cliffsteer.export.export` wrote.")
        try:
            description = json.loads(about.read_text(encoding="utf-8"))
            known = (description["format"], description["format_version"]) == (FORMAT, FORMAT_VERSION)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"`{about}` is damaged: {error}.") from error
        if not known:
            raise ValueError(f"`{about}` describes no program of this version: export the surrogate again.")
        if description["sha256"] != sha256(file):
            raise ValueError(f"`{file}` is damaged: it differs from its checksum in {about.name}.")
        self.file, self.description = file, description
        self.spec, self.grid = FieldSpec.from_dict(description["spec"]), Grid.from_dict(description["grid"])
        self.dt, self.history, self.future = description["dt"], description["history"], description["future"]
        self.dtype = getattr(torch, description["inputs"][0]["dtype"])
        self.any_grid = any(isinstance(size, str) for size in description["inputs"][0]["shape"][1:])
        self._run = _onnx(file) if file.suffix == ".onnx" else _torch(file)

    def at(self, grid: Grid) -> Program:
        """The same program on another grid of the same spacing, if it was exported for any grid.

        Raises:
            ValueError: a program of one grid, or cells of another size.
        """
        if not self.any_grid or grid.spacing != self.grid.spacing or grid.unit != self.grid.unit:
            raise ValueError(
                f"`grid` (={grid.shape}, cells {grid.spacing}) does not fit: export the surrogate with any_grid=True,"
                f" for other numbers of cells of size {self.grid.spacing}."
            )
        other = object.__new__(Program)
        other.__dict__.update(self.__dict__, grid=grid)
        return other

    def step(self, frames: Tensor, parameters: Parameters | None = None) -> Tensor:
        """The next frames, shape (batch, future, blade, *grid), in the dtype and on the device of ``frames``."""
        check_frames(self, frames)
        inputs = [frames[:, -self.history :].detach().to(self.dtype)]
        if self.spec.parameters:
            inputs.append(self.spec.pack_parameters(parameters, len(frames), self.dtype, frames.device))
        return self._run(*inputs).to(frames)


def _torch(file: Path) -> Callable[..., Tensor]:
    module = torch.export.load(file).module()

    def run(*inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return module(*inputs)

    return run


def _onnx(file: Path) -> Callable[..., Tensor]:
    if importlib.util.find_spec("onnxruntime") is None:
        raise ImportError("An ONNX program needs onnxruntime: pip install 'cliffsteer[onnx]'.")
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        feeds = {name: x.cpu().contiguous().numpy() for name, x in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feeds)[0])

    return run
