"""Tiny files in the layouts of other projects, array by array as their own programs write them."""

import h5py
import numpy as np


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def pdearena_smoke(path, n=3, nt=4, nx=6, ny=5, mode="train", buoyancy=0.5):
    """Navier-Stokes of PDEArena: all float64; x and y run from wall to wall, dx and dy are the cells."""
    with h5py.File(path, "w") as file:
        group = file.create_group(mode)
        for i, name in enumerate(("u", "vx", "vy")):
            group.create_dataset(name, data=numbers(n, nt, nx, ny, seed=i))
        lengths = {"t": (nt, 18.0, 1.5), "x": (nx, 32.0, 32 / nx), "y": (ny, 40.0, 40 / ny)}
        for name, (size, end, step) in lengths.items():
            group.create_dataset(name, data=np.tile(np.linspace(0, end, size), (n, 1)))
            group.create_dataset(f"d{name}", data=np.full(n, step))
        group.create_dataset("buo_y", data=np.full(n, buoyancy) + 0.01 * np.arange(n))
    return path


def pdearena_maxwell(path, n=2, nt=3, size=4, mode="test"):
    """Maxwell of PDEArena: D and H with their components last, and nothing else."""
    with h5py.File(path, "w") as file:
        group = file.create_group(mode)
        group.create_dataset("d_field", data=numbers(n, nt, size, size, size, 3))
        group.create_dataset("h_field", data=numbers(n, nt, size, size, size, 3, seed=1))
    return path


def pdebench_flow(path, shape=(4, 6), n=3, nt=5, extra_time=1):
    """Compressible flow of PDEBench: float32, cell centres, one time more than frames."""
    with h5py.File(path, "w") as file:
        for i, name in enumerate(["density", "pressure", *(f"V{axis}" for axis, _ in zip("xyz", shape, strict=False))]):
            file.create_dataset(name, data=numbers(n, nt, *shape, seed=i).astype("f4"))
        for axis, size in zip("xyz", shape, strict=False):
            file.create_dataset(f"{axis}-coordinate", data=((np.arange(size) + 0.5) / size).astype("f4"))
        file.create_dataset("t-coordinate", data=(0.05 * np.arange(nt + extra_time)).astype("f4"))
        file.attrs["eta"], file.attrs["zeta"], file.attrs["M"] = 0.1, 0.2, 0.3
    return path


def pdebench_tensor(path, n=3, nt=4, nx=8):
    """Advection, Burgers and the like of PDEBench."""
    with h5py.File(path, "w") as file:
        file.create_dataset("tensor", data=numbers(n, nt, nx).astype("f4"))
        file.create_dataset("x-coordinate", data=((np.arange(nx) + 0.5) / nx).astype("f4"))
        file.create_dataset("t-coordinate", data=(0.01 * np.arange(nt + 1)).astype("f4"))
        file.attrs["Nu"] = 0.01
    return path


def pdebench_incompressible(path, n=2, nt=3, nx=4, ny=5):
    """Incompressible flow of PDEBench: components last, no spatial coordinates, a constant force."""
    with h5py.File(path, "w") as file:
        file.create_dataset("velocity", data=numbers(n, nt, nx, ny, 2).astype("f4"))
        file.create_dataset("particles", data=numbers(n, nt, nx, ny, 1, seed=1).astype("f4"))
        file.create_dataset("force", data=numbers(n, nx, ny, 2, seed=2).astype("f4"))
        file.create_dataset("t", data=np.tile(0.005 * np.arange(nt), (n, 1)).astype("f4"))
        file.attrs["latestIndex"] = nt - 1
    return path


def pdebench_groups(path, n=2, nt=3, nx=4, ny=5, components=2):
    """Reaction-diffusion and shallow water of PDEBench: a group for each trajectory."""
    with h5py.File(path, "w") as file:
        for i in range(n):
            data = numbers(nt, nx, ny, components, seed=i).astype("f4")
            file.create_dataset(f"{i:04d}/data", data=data, compression="lzf")
            for name, size, step in (("x", nx, 0.5), ("y", ny, 0.25), ("t", nt, 0.1)):
                file.create_dataset(f"{i:04d}/grid/{name}", data=(step * np.arange(size)).astype("f4"))
            file[f"{i:04d}"].attrs["config"] = "sim: {}"
    return path


def well(path, n=2, nt=4, shape=(3, 4, 5)):
    """A file of The Well with every kind of field that its format knows."""
    dims = ["x", "y", "z"][: len(shape)]

    def add(group, name, data, sample=True, time=True, **more):
        dataset = group.create_dataset(name, data=np.asarray(data, "f4"))
        for key, value in {"sample_varying": sample, "time_varying": time, **more}.items():
            dataset.attrs[key] = value

    with h5py.File(path, "w") as file:
        for name, value in {"dataset_name": "little", "grid_type": "cartesian", "n_spatial_dims": len(shape)}.items():
            file.attrs[name] = value
        file.attrs["n_trajectories"], file.attrs["simulation_parameters"], file.attrs["nu"] = n, ["nu"], 0.5
        group = file.create_group("dimensions")
        group.attrs["spatial_dims"] = dims
        add(group, "time", 2 + 0.5 * np.arange(nt), False, True)
        for name, size in zip(dims, shape, strict=True):
            add(group, name, np.arange(size) / size, False, False)
        sides = file.create_group("boundary_conditions")
        for name, kind in zip(dims, ("PERIODIC", "WALL", "OPEN"), strict=False):
            side = sides.create_group(f"{name}_{kind.lower()}")
            side.attrs["associated_dims"], side.attrs["associated_fields"] = [name], []
            side.attrs["bc_type"], side.attrs["sample_varying"], side.attrs["time_varying"] = kind, False, False
            mask = np.zeros(shape[dims.index(name)], bool)
            mask[[0, -1]] = True
            side.create_dataset("mask", data=mask)
            side.create_dataset("values", data=np.zeros(2, "f4"))
        scalars = file.create_group("scalars")
        scalars.attrs["field_names"] = ["nu", "g", "heating"]
        add(scalars, "nu", 0.5, False, False)
        add(scalars, "g", [1.0, 2.0], True, False)
        add(scalars, "heating", numbers(n, nt), True, True)
        varying = {"dim_varying": [True] * len(shape)}
        t0, t1, t2 = (file.create_group(f"t{i}_fields") for i in range(3))
        t0.attrs["field_names"], t1.attrs["field_names"], t2.attrs["field_names"] = (
            ["p", "mask", "profile"],
            ["B"],
            ["S"],
        )
        add(t0, "p", numbers(n, nt, *shape), **varying)
        add(t0, "mask", numbers(*shape, seed=1), False, False, **varying)
        only_x = [i == 0 for i in range(len(shape))]
        add(
            t0,
            "profile",
            numbers(n, nt, *(s if v else 1 for s, v in zip(shape, only_x, strict=True)), seed=2),
            dim_varying=only_x,
        )
        add(t1, "B", numbers(n, nt, *shape, len(shape), seed=3), **varying)
        add(t2, "S", numbers(n, nt, *shape, len(shape), len(shape), seed=4), **varying)
    return path
