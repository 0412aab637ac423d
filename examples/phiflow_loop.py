"""A classic PhiFlow smoke script with a surrogate in its loop: lines (1) to (3) are all that changes.

    python examples/phiflow_loop.py runs/smoke --steps 20 --out loop.png

Takes a surrogate's folder or a run's folder. The script's own step runs beside it, for comparison: for each step it
logs the relative difference of the two and the time of each, and at the end draws both smokes.
"""

import argparse
import logging
import time
from pathlib import Path

from phi import math
from phi.field import CenteredGrid, Field, Noise, StaggeredGrid, resample
from phi.geom import Box
from phi.math import extrapolation
from phi.physics import advect, diffuse, fluid
from phi.torch import TORCH

from cliffsteer import Surrogate
from cliffsteer.interop.phiflow import PhiFlowStep  # (1)

BUOYANCY = (0.0, 0.5)
VISCOSITY = 0.01


def classic_step(v: Field, s: Field, dt: float) -> tuple[Field, Field]:
    """The script's own step: advection, buoyancy, diffusion, pressure."""
    s = advect.semi_lagrangian(s, v, dt)
    buoyancy = resample(s * BUOYANCY, to=v)
    v = advect.semi_lagrangian(v, v, dt) + buoyancy * dt
    v = diffuse.explicit(v, VISCOSITY, dt)
    v, _ = fluid.make_incompressible(v, solve=math.Solve("CG", 1e-6, 1e-6, rank_deficiency=0))
    return v, s


def main(arguments: list[str] | None = None) -> None:
    """Run the loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a surrogate's folder, or that of a run")
    parser.add_argument("--start", type=int, default=4, help="classic steps before the surrogate takes over")
    parser.add_argument("--steps", type=int, default=20, help="steps to take and to compare")
    parser.add_argument("--seed", type=int, default=0, help="of the initial smoke")
    parser.add_argument("--out", type=Path, default=Path("phiflow_loop.png"), help="image to write")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run = options.folder / "surrogate"
    surrogate = Surrogate.from_pretrained(run if run.is_dir() else options.folder)
    (nx, ny), (width, height) = surrogate.grid.shape, surrogate.grid.extent
    dt = surrogate.dt

    with TORCH, math.precision(64):
        math.seed(options.seed)
        domain = {"bounds": Box(x=width, y=height), "x": nx, "y": ny}
        s = abs(CenteredGrid(Noise(scale=11.0, smoothness=6.0), extrapolation.BOUNDARY, **domain))
        v = StaggeredGrid(0.0, extrapolation.ZERO, **domain)
        for _ in range(options.start):
            v, s = classic_step(v, s, dt)

        def simulate(v: Field, s: Field) -> tuple[Field, Field]:
            return classic_step(v, s, dt)

        step = PhiFlowStep(surrogate, warm_up=simulate, buoyancy=BUOYANCY, viscosity=VISCOSITY)  # (2)
        true_v, true_s, shown = v, s, []
        for i in range(options.steps):
            start = time.perf_counter()
            v, s = step(v, s)  # (3)
            middle = time.perf_counter()
            true_v, true_s = simulate(true_v, true_s)
            end = time.perf_counter()
            error = math.l2_loss(s.values - true_s.values) / math.l2_loss(true_s.values)
            logging.info(
                "step %3d: smoke differs by %.3f; surrogate %.1f ms, solver %.1f ms",
                i + 1,
                float(error) ** 0.5,
                (middle - start) * 1e3,
                (end - middle) * 1e3,
            )
            shown.append((i + 1, s.values.numpy("y,x"), true_s.values.numpy("y,x")))
    draw(shown, options.out)


def draw(shown: list, path: Path) -> None:
    """Draw some steps, the surrogate's smoke above the solver's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    picked = shown[:: max(1, len(shown) // 6)]
    figure, axes = pyplot.subplots(2, len(picked), figsize=(2 * len(picked), 4.4), squeeze=False)
    for column, (step, *images) in zip(axes.T, picked, strict=True):
        for axis, image, name in zip(column, images, ("surrogate", "solver"), strict=True):
            axis.imshow(image, origin="lower", vmin=0, vmax=2, cmap="magma")
            axis.set_title(f"{name}, step {step}", fontsize=8)
            axis.axis("off")
    figure.savefig(path, dpi=100, bbox_inches="tight")
    pyplot.close(figure)
    logging.info("written: %s", path)


if __name__ == "__main__":
    main()
