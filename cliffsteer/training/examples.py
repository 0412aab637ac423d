"""Examples: what the network can do so far, at each validation, in TensorBoard: numbers, figures and an animation."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import Dataset

from cliffsteer import plotting
from cliffsteer.baselines import Persistence
from cliffsteer.datasets.spectra import isotropic_spectra
from cliffsteer.elements import grid_elements
from cliffsteer.evaluation import rollout_errors
from cliffsteer.stepper import rollout
from cliffsteer.surrogate import Surrogate
from cliffsteer.training.module import SurrogateModule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Window = Mapping[str, Tensor]


class Examples(Callback):
    """At each validation: the errors of rollouts and of symmetry; one window, its rollout and spectra as pictures.

    Args:
        window: a validation window, an item of a `WindowDataset`.
        rollouts: windows to roll out over their whole future, the first of which is shown; None for no rollouts.
        images: draw figures beside logging numbers.
    """

    def __init__(self, window: Window, rollouts: Dataset | None, images: bool = True):
        self.window, self.rollouts, self.images = window, rollouts, images

    def on_validation_end(self, trainer: Trainer, module: SurrogateModule) -> None:
        """Roll out, log and draw."""
        if not trainer.is_global_zero:
            return
        surrogate, writer, step = module.validated, trainer.logger.experiment, trainer.global_step
        error = symmetry_error(surrogate, self.window, trainer.precision_plugin.forward_context())
        if error is not None:
            writer.add_scalar("valid/equivariance_error", error, step)
        if self.rollouts is not None:
            curve = rollout_errors(surrogate, self.rollouts)["overall"]["nrmse"]
            writer.add_scalar(f"valid/rollout_nrmse_{len(curve)}_steps", curve[-1], step)
            if self.images:
                persistence = rollout_errors(Persistence.of(surrogate), self.rollouts)["overall"]["nrmse"]
                curves = {"network": curve, "persistence": persistence}
                figure = plotting.error_curves(curves, surrogate.dt, f"rollouts after {step} training steps")
                writer.add_image("valid/rollout", _pixels(figure), step, dataformats="HWC")
        if self.images:
            self._draw(surrogate, writer, step)

    def _draw(self, surrogate: Surrogate, writer: object, step: int) -> None:
        spec, grid = surrogate.spec, surrogate.grid
        truth, prediction = _rolled_out(surrogate, self.window if self.rollouts is None else self.rollouts[0])
        lead = f"after {len(truth)} time step{'s' if len(truth) > 1 else ''}"
        figure = spectrum_figure(surrogate, {"truth": truth[-1], "prediction": prediction[-1]}, lead)
        writer.add_image("valid/spectra", _pixels(figure), step, dataformats="HWC")
        if grid.dim < 2:
            return
        true, predicted = (frames[0] for frames in _rolled_out(surrogate, self.window))
        frames = {"truth": true, "prediction": predicted}
        figure = plotting.field_panels(spec, grid, frames, {"error": predicted - true})
        writer.add_image("valid/frames", _pixels(figure), step, dataformats="HWC")
        if len(truth) > 1:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "rollout.gif"
                plotting.save_animation(path, spec, grid, {"truth": truth, "prediction": prediction}, surrogate.dt)
                _add_gif(writer, "valid/animation", path.read_bytes(), step)


def symmetry_error(surrogate: Surrogate, window: Window, precision: AbstractContextManager) -> float | None:
    """How far a surrogate is from commuting with reflections of one axis and swaps of two, in the given precision.

        max_g ‖f(gx, gp) − g f(x, p)‖ / ‖f(x, p) − x_h‖

    These generate the lattice's symmetries. In float32 an equivariant network has an error of rounding; `cliffsteer
    inspect equivariance` measures all symmetries in float64.

    Args:
        surrogate: the surrogate.
        window: "history" and "parameters" of one sample.
        precision: what the predictions are made in, for example an autocast.

    Returns:
        The error; None where the grid has no such symmetry.
    """
    algebra, grid = surrogate.spec.algebra, surrogate.grid
    elements = [g for g in grid_elements(algebra, grid, "generators") if g.missing is None and not g.is_translation]
    device = surrogate.occupied.device
    frames, parameters = (window[key][None].to(device, surrogate.dtype) for key in ("history", "parameters"))
    with torch.no_grad(), precision:
        reference = surrogate(frames, parameters)
        size = (reference - frames[:, -1:]).norm()
        errors = [
            (surrogate(g.act(algebra, frames), g.turn(algebra, parameters)) - g.act(algebra, reference)).norm()
            for g in elements
        ]
    return float(torch.stack(errors).max() / size) if errors and size > 0 else None


def spectrum_figure(surrogate: Surrogate, frames: Mapping[str, Tensor], title: str = "") -> Figure:
    """Isotropic spectra of each field, a panel each, on logarithmic axes over nine decades at most.

    Args:
        surrogate: says what the fields are.
        frames: label -> one frame, (blade, *grid).
        title: added to the heading.
    """
    from matplotlib.figure import Figure

    spec, grid = surrogate.spec, surrogate.grid
    figure = Figure(figsize=(3.6 * len(spec.dynamic), 3.2))
    panels = figure.subplots(1, len(spec.dynamic), squeeze=False)[0]
    figure.subplots_adjust(left=0.7 / figure.get_figwidth(), right=0.98, bottom=0.17, top=0.9, wspace=0.3)
    styles = zip(plotting.COLOURS, plotting.DASHES, strict=True)
    highest = dict.fromkeys((field.name for field in spec.dynamic), 0.0)
    for (label, frame), (colour, dash) in zip(frames.items(), styles, strict=False):
        k, spectra = isotropic_spectra(spec, grid, frame[None, None])
        for panel, (name, energy) in zip(panels, spectra.items(), strict=True):
            values = np.where(np.isfinite(energy[0, 0, 1:]) & (energy[0, 0, 1:] > 0), energy[0, 0, 1:], np.nan)
            panel.plot(k[1:], values, label=label, color=colour, linestyle=dash)
            highest[name] = max(highest[name], np.nanmax(values, initial=0.0))
    for panel, (name, top) in zip(panels, highest.items(), strict=True):
        panel.set(
            xlabel=f"wave number [rad/{grid.unit[-1]}]", title=f"{name} {title}".strip(), xscale="log", yscale="log"
        )
        if top:
            panel.set_ylim(bottom=max(1e-9 * top, panel.get_ylim()[0]))
        panel.grid(True, alpha=0.25)
    panels[0].set_ylabel("energy")
    panels[0].legend(fontsize=8, frameon=False)
    return figure


# ---------------------------------------------------------------------------------------------------- private


def _rolled_out(surrogate: Surrogate, window: Window) -> tuple[Tensor, Tensor]:
    """The future of a window and the surrogate's, each (time, blade, *grid), on the CPU."""
    device = surrogate.occupied.device
    history, future, packed = (
        window[key][None].to(device, surrogate.dtype) for key in ("history", "future", "parameters")
    )
    with torch.no_grad():
        frames = rollout(surrogate, history, future.shape[1], surrogate.spec.unpack_parameters(packed))
    return future[0].cpu(), frames[0].cpu()


def _pixels(figure: Figure) -> np.ndarray:
    """A figure as an image, (height, width, 3), uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _add_gif(writer: object, tag: str, content: bytes, step: int) -> None:
    """Add an animation as it is; TensorBoard hands images to the browser, which plays it."""
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
    picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
    writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=picture)]), step)
