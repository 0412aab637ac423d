import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.datasets import Header, Shard, ShardWriter
from cliffsteer.datasets.files import sha256

SIGNATURES = [(1,), (1, 1), (1, 1, 1), (1, -1, -1), (1, -1, -1, -1)]


def every_grade(signature):
    """Two multivectors' worth of fields: each grade twice, dynamic, and each grade once as a parameter."""
    grades = range(len(signature) + 1)
    fields = [Field(f"{name}{k}", k, "m") for name in ("a", "b") for k in grades]
    return FieldSpec(signature, fields + [Field(f"p{k}", k, "1", "parameter") for k in grades])


def header_of(spec, grid, n_frames=3, seeds=(11, 2**62 + 1), **more):
    generator = torch.Generator().manual_seed(1)
    shapes = {f.name: (len(seeds), spec.slots[f.name].size) for f in spec.parameters}
    values = {n: torch.randn(s, generator=generator, dtype=torch.float64).tolist() for n, s in shapes.items()}
    return Header(spec, grid, 0.25, n_frames, seeds, values, "demo", **more)


def write(path, header, seed=0):
    shape = (header.n_trajectories, header.n_frames, header.spec.n_blades, *header.grid.shape)
    frames = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    frames[:, :, ~header.spec.occupied] = 0
    with ShardWriter(path, header) as writer:
        writer.append(frames[:, :2].double())
        writer.append(frames[:, 2:])
    assert writer.sha256 == sha256(path)
    return frames


@pytest.mark.parametrize("signature", SIGNATURES)
def test_every_grade_of_every_signature_survives(signature, tmp_path):
    spec = every_grade(signature)
    assert spec.n_multivectors == 2
    grid = Grid((3, 4, 5, 2)[: len(signature)], 0.5)
    header = header_of(spec, grid, options={"n": 3, "kind": ["x"]}, recipe={"seed": 1}, start=2.5, software="1.2")
    frames = write(tmp_path / "s.hdf5", header)
    shard = Shard(tmp_path / "s.hdf5", spec, grid)
    assert shard.header == header
    for trajectory in range(2):
        assert torch.equal(shard.read(trajectory, 0, 3), frames[trajectory])
    assert torch.equal(shard.read(1, 1, 2), frames[1, 1:2])
    packed = spec.pack_parameters(header.parameters, 2)
    assert torch.equal(shard.header.packed_parameters(), packed)


class WellReader:
    """Reads a file by The Well's published format alone, as its own loader does."""

    def __init__(self, path):
        self.file = h5py.File(path, "r")
        self.dims = list(self.file["dimensions"].attrs["spatial_dims"])

    def fields(self, sample, start, stop):
        """Dict from name to (time, *grid, component)."""
        out = {}
        for order in range(3):
            group = self.file[f"t{order}_fields"]
            for name in group.attrs["field_names"]:
                field = group[name]
                assert field.dtype == np.float32
                assert field.attrs["sample_varying"]
                assert field.attrs["time_varying"]
                assert field.attrs["dim_varying"].tolist() == [True] * len(self.dims)
                values = field[sample, start:stop]
                out[name] = values.reshape(*values.shape[: 1 + len(self.dims)], len(self.dims) ** order)
        return out

    def constant_scalars(self, sample):
        group = self.file["scalars"]
        out = {}
        for name in group.attrs["field_names"]:
            assert not group[name].attrs["time_varying"]
            out[name] = group[name][(sample,) if group[name].attrs["sample_varying"] else ()]
        return out

    def padding(self):
        out = np.ones((len(self.dims), 2), int)
        for condition in self.file["boundary_conditions"].values():
            code = {"WALL": 0, "OPEN": 1, "PERIODIC": 2}[condition.attrs["bc_type"].upper()]
            (dim,) = condition.attrs["associated_dims"]
            assert list(condition.attrs["associated_fields"]) == []
            mask = condition["mask"][:]
            assert mask.dtype == bool
            assert condition["values"].shape == (mask.sum(),)
            for side in (0, -1):
                if mask[side]:
                    out[self.dims.index(dim), side] = code
        return out


def test_the_layout_is_that_of_the_well(tmp_path):
    fields = [Field("s", 0), Field("v", 1, "m/s"), Field("b", 2, "T"), Field("p", 3)]
    parameters = [Field("g", 1, "m/s^2", "parameter"), Field("nu", 0, "1", "parameter")]
    spec = FieldSpec((1, 1, 1), fields + parameters)
    grid = Grid((4, 3, 2), (0.5, 1.0, 2.0), ["periodic", ("slip", "open"), "no_slip"])
    header = header_of(spec, grid, options={"dt": 0.25, "order": 2, "method": "rk4", "grid_type": 7}, start=1.0)
    frames = write(tmp_path / "s.hdf5", header).movedim(2, -1).numpy()
    well = WellReader(tmp_path / "s.hdf5")

    root = well.file.attrs
    assert (root["dataset_name"], root["grid_type"], root["n_spatial_dims"], root["n_trajectories"]) == (
        "demo",
        "cartesian",
        3,
        2,
    )
    assert list(root["simulation_parameters"]) == ["dt", "order"]
    assert (root["dt"], root["order"]) == (0.25, 2.0)
    dimensions = well.file["dimensions"]
    assert well.dims == ["x", "y", "z"]
    np.testing.assert_array_equal(dimensions["time"], np.float32([1.0, 1.25, 1.5]))
    np.testing.assert_array_equal(dimensions["y"], np.float32([0.5, 1.5, 2.5]))
    assert not dimensions["time"].attrs["sample_varying"]
    assert not any(dimensions[d].attrs[a] for d in well.dims for a in ("sample_varying", "time_varying"))
    assert well.padding().tolist() == [[2, 2], [0, 1], [0, 0]]
    assert {name: list(well.file[f"t{i}_fields"].attrs["field_names"]) for i, name in enumerate("012")} == {
        "0": ["s", "p"],
        "1": ["v", "b"],
        "2": [],
    }

    read = well.fields(1, 1, 3)
    np.testing.assert_array_equal(read["s"], frames[1, 1:3, ..., :1])
    np.testing.assert_array_equal(read["v"], frames[1, 1:3, ..., 1:4])
    np.testing.assert_array_equal(read["b"], frames[1, 1:3, ..., [6, 5, 4]].transpose(1, 2, 3, 4, 0) * [1, -1, 1])
    np.testing.assert_array_equal(read["p"], frames[1, 1:3, ..., 7:])
    scalars = well.constant_scalars(1)
    assert list(scalars) == ["g_e1", "g_e2", "g_e3", "nu"]
    assert scalars["g_e2"] == np.float32(header.parameters["g"][1][1])
    assert all(value.shape == () for value in scalars.values())


def test_one_uncompressed_frame_per_chunk_and_trajectories_in_a_row(tmp_path):
    spec = FieldSpec((1, 1), [Field("s", 0), Field("v", 1)])
    write(tmp_path / "s.hdf5", header_of(spec, Grid((4, 6))))
    with h5py.File(tmp_path / "s.hdf5") as file:
        for name, frame in (("t0_fields/s", (4, 6)), ("t1_fields/v", (4, 6, 2))):
            dataset = file[name]
            assert dataset.chunks == (1, 1, *frame)
            assert dataset.compression is None
            assert dataset.dtype == np.dtype("<f4")
            offsets = [dataset.id.get_chunk_info(i).byte_offset for i in range(6)]
            assert set(np.diff(offsets)) == {4 * np.prod(frame)}


def test_the_bytes_depend_on_the_content_alone(tmp_path):
    script = "import sys; sys.path.insert(0, sys.argv[1]); from test_writer import *; write(sys.argv[2], header_of("
    script += "every_grade((1, -1, -1)), Grid((3, 4, 5), 0.5)))"
    folder = __file__.rsplit("/", 1)[0]
    subprocess.run([sys.executable, "-c", script, folder, str(tmp_path / "a.hdf5")], check=True)
    write(tmp_path / "b.hdf5", header_of(every_grade((1, -1, -1)), Grid((3, 4, 5), 0.5)))
    assert (tmp_path / "a.hdf5").read_bytes() == (tmp_path / "b.hdf5").read_bytes()


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path):
    spec, grid = FieldSpec((1, 1), [Field("s", 0)]), Grid((4, 4))
    path = tmp_path / "s.hdf5"
    with pytest.raises(ValueError, match="`grid` has 1 axes"):
        ShardWriter(path, header_of(spec, Grid((4,))))
    with (
        pytest.raises(ValueError, match="2 frames were written, but the header promises 3"),
        ShardWriter(path, header_of(spec, grid)) as writer,
    ):
        writer.append(torch.zeros(2, 2, 4, 4, 4))
    with (
        pytest.raises(ValueError, match="makes 4 frames, but the header promises 3"),
        ShardWriter(path, header_of(spec, grid)) as writer,
    ):
        writer.append(torch.zeros(2, 4, 4, 4, 4))
    with pytest.raises(ValueError, match="expected 2 trajectories"), ShardWriter(path, header_of(spec, grid)) as writer:
        writer.append(torch.zeros(1, 1, 4, 4, 4))
    with pytest.raises(KeyboardInterrupt), ShardWriter(path, header_of(spec, grid)) as writer:
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


DISK_FULL = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_writer import *
folder, told = Path(sys.argv[2]), []
header = header_of(FieldSpec((1, 1), [Field("s", 0), Field("v", 1)]), Grid((32, 32)))
write(folder / "fits.hdf5", header)
size = (folder / "fits.hdf5").stat().st_size
for limit in (10, 1000, 10000, size // 2, size - 1, size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write(folder / f"limit_{limit}.hdf5", header)
    except OSError as error:
        told.append(str(error))
print(json.dumps([told, size]))
"""


def test_a_full_disk_is_one_sentence_and_no_crash(tmp_path):
    arguments = [sys.executable, "-c", DISK_FULL, __file__.rsplit("/", 1)[0], str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told, size = json.loads(done.stdout)
    assert len(told) == 5
    assert all(text.startswith("No space left to write") and "(File too large)" in text for text in told)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(f"{n}.hdf5{e}" for n in ("fits", f"limit_{size}") for e in ("", ".sha256"))
    Shard(tmp_path / "fits.hdf5").read(1, 0, 3)
