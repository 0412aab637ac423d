import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
import torch

from cliffsteer.datasets import Recipe, TrajectoryDataset, generate, read_manifest, trajectory_seed, verify
from cliffsteer.solvers import create

HERE = str(Path(__file__).parent)


def contents(root):
    """All that must be the same byte for byte: everything but the data card, which says how long it took."""
    paths = [p for p in sorted(root.rglob("*")) if p.is_file() and p.name != "README.md"]
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in paths}


def changed(recipe, **changes):
    return Recipe(**{**recipe.to_dict(), **changes})


def test_what_is_there(finished):
    assert sorted(contents(finished)) == [
        "dataset.json",
        "frames.png",
        "train/shard_00000.hdf5",
        "train/shard_00001.hdf5",
        "train/shard_00002.hdf5",
        "valid/shard_00000.hdf5",
    ]


def test_two_workers_make_the_same_bytes_as_one(finished, recipe, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        generate(recipe, tmp_path / "one", workers=1, progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    generate(recipe, tmp_path / "two", workers=2, progress=False)
    assert contents(tmp_path / "one") == contents(finished)
    assert contents(tmp_path / "two") == contents(finished)


def test_a_finished_dataset_is_left_alone(dataset, recipe):
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    generate(recipe, dataset, progress=False)
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


def test_only_damaged_and_missing_shards_are_made_anew(dataset, finished, recipe):
    first, second, third = (dataset / "train" / f"shard_0000{i}.hdf5" for i in range(3))
    second.unlink()
    data = bytearray(third.read_bytes())
    data[-1] ^= 1
    third.write_bytes(data)
    before = first.stat().st_ino
    generate(recipe, dataset, progress=False)
    assert contents(dataset) == contents(finished)
    assert first.stat().st_ino == before


SCRIPT = """
import signal, sys
sys.path.insert(0, sys.argv[1])
import advected_heat
from cliffsteer.datasets import Recipe, generate
if __name__ == "__main__":
    recipe = Recipe("advected_heat", {"cells": 4, "pace": 0.02}, {"train": 8, "valid": 2}, frames=9, batch=1)
    try:
        generate(recipe, sys.argv[2], workers=int(sys.argv[3]), progress=False)
    except KeyboardInterrupt:
        sys.exit(130)
"""
SLOW = Recipe("advected_heat", {"cells": 4, "pace": 0.02}, {"train": 8, "valid": 2}, frames=9, batch=1)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return contents(generate(SLOW, tmp_path_factory.mktemp("unbroken") / "d", workers=2, progress=False))


def start(tmp_path, workers, shards):
    """Run the slow recipe in a process of its own until so many shards are finished."""
    script, out = tmp_path / "script.py", tmp_path / "d"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), HERE, str(out), str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(out.glob("*/*.hdf5"))) < shards:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process, out


def alive(group):
    """Processes of a group that still run (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_generation_resumes_to_the_same_bytes(workers, unbroken, tmp_path):
    process, out = start(tmp_path, workers, 3)
    process.kill()
    process.wait()
    process.stderr.close()
    deadline = time.monotonic() + 10
    while alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert alive(process.pid) == []  # workers end with their parent
    kept = {path: path.stat().st_ino for path in out.glob("*/*.hdf5")}
    assert 3 <= len(kept) < 10
    with pytest.raises(ValueError, match=r"is unfinished: run the same `cliffsteer generate` again"):
        TrajectoryDataset(out, "train")
    assert any("is missing" in problem for problem in verify(out))
    generate(SLOW, out, progress=False)
    assert contents(out) == unbroken
    assert {path: path.stat().st_ino for path in kept} == kept


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_generation_cleans_up_and_resumes(workers, unbroken, tmp_path):
    process, out = start(tmp_path, workers, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C: to parent and workers alike
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == b""
    names = {path.name for path in out.rglob("*") if path.is_file()}
    assert not any(name.endswith(".tmp") for name in names)
    kept = {path: path.stat().st_ino for path in out.glob("*/*.hdf5")}
    generate(SLOW, out, progress=False)
    assert contents(out) == unbroken
    assert {path: path.stat().st_ino for path in kept} == kept


def test_frames_are_every_nth_step_after_the_skipped_ones(tmp_path):
    recipe = Recipe("advected_heat", {"cells": 4, "dt": 0.05}, {"train": 3}, frames=4, every=3, skip=2, batch=3)
    train = TrajectoryDataset(generate(recipe, tmp_path / "d", progress=False), "train")
    assert train.dt == pytest.approx(0.15)
    solver = create("advected_heat", cells=4, dt=0.05)
    state, frames = solver.initial(train.seeds), []
    for _ in range(16):
        frames.append(solver.observe(state))
        state = solver.advance(state)
    expected = torch.cat(frames, 1)[:, 6::3].float()
    assert expected.shape[1] == 4
    torch.testing.assert_close(torch.stack([train.read(i) for i in range(3)]), expected, rtol=0, atol=0)
    with h5py.File(tmp_path / "d" / "train" / "shard_00000.hdf5") as file:
        assert file["dimensions/time"][:].tolist() == pytest.approx([0.3, 0.45, 0.6, 0.75])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 12}, r"holds a dataset of another recipe: `frames` is 11 there, 12 here; give another folder"),
        ({"options": {"cells": 8, "dt": 0.2}}, r"`options.dt` is unset there, 0.2 here"),
        (
            {"splits": {"train": 5, "test": 2}},
            r"`splits.test` is unset there, 2 here; `splits.valid` is 2 there, unset",
        ),
        ({"seed": 4, "every": 2, "skip": 1, "batch": 3}, r"\(and 1 more\)"),
    ],
)
def test_a_folder_with_another_recipe_is_refused(dataset, finished, recipe, changes, message):
    with pytest.raises(ValueError, match=message):
        generate(changed(recipe, **changes), dataset, progress=False)
    assert contents(dataset) == contents(finished)


def test_a_folder_with_something_else_is_refused(dataset, recipe, tmp_path):
    (dataset / "dataset.json").unlink()
    with pytest.raises(ValueError, match=r"holds shard_00000\.hdf5 but no dataset\.json: give an empty folder"):
        generate(recipe, dataset, progress=False)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"Cannot make the folder .*file \(File exists\)"):
        generate(recipe, tmp_path / "file", progress=False)


def test_a_folder_in_use_is_refused(dataset, recipe):
    fd = os.open(dataset, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="is being generated by another process"):
            generate(recipe, dataset, progress=False)
    finally:
        os.close(fd)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_simulation_that_blows_up_names_solver_seed_and_step(workers, recipe, tmp_path):
    # heat that flows from cold to warm: grows without bound
    unstable = changed(recipe, options={"cells": 8, "conductivity": -20.0})
    message = (
        r"Solver 'advected_heat' made NaN or infinite values by step \d+ of the trajectory with seed \d+ \(trajectory"
        r" \d+ of train/shard_0000\d.hdf5\), and so did 3 seed\(s\) before it: try a smaller time step.*2 more shard"
    )
    with pytest.raises(ValueError, match=message):
        generate(unstable, tmp_path / "d", workers=workers, progress=False)
    assert [path.name for path in (tmp_path / "d").rglob("*") if path.is_file()] == ["dataset.json"]
    assert len(read_manifest(tmp_path / "d").failures) == 3  # after which it gave up


FRAGILE = Recipe("advected_heat", {"cells": 4, "limit": 0.3}, {"train": 6, "valid": 2}, frames=4, batch=2, seed=1)


@pytest.fixture(scope="module")
def replaced(tmp_path_factory):
    """A dataset of which some trajectories had to be replaced."""
    return generate(FRAGILE, tmp_path_factory.mktemp("replaced") / "d", progress=False, retries=8)


def test_a_trajectory_that_diverges_is_replaced_and_noted(replaced, caplog, tmp_path):
    generate(FRAGILE, tmp_path / "d", progress=False, retries=8)
    manifest = read_manifest(replaced)
    assert verify(replaced) == []
    assert (manifest.complete, manifest.failures) == (True, {})
    notes = [note for entry in manifest.shards["train"] for note in entry.replaced]
    told = [text for text in caplog.messages if "another seed took its place" in text]
    assert 2 <= len(notes) <= len(told) < 12
    card = (replaced / "README.md").read_text()
    for note in notes:
        assert note["step"] == 2
        assert note["seed"] not in TrajectoryDataset(replaced, "train").seeds
        assert any(f"trajectory with seed {note['seed']} (trajectory {note['trajectory']} of train" in t for t in told)
        assert f"seed {note['seed']} diverged by step 2" in card
    train = TrajectoryDataset(replaced, "train")
    attempts = [sum(note["trajectory"] == i for note in notes) for i in range(6)]
    assert train.seeds == tuple(trajectory_seed(1, "train", i, attempts[i]) for i in range(6))
    assert float(train.spec.unpack_parameters(train.parameters)["wind"][:, 0].max()) <= 0.3
    assert contents(tmp_path / "d") == contents(replaced)


def test_replaced_trajectories_are_the_same_in_other_processes_and_after_damage(replaced, tmp_path):
    shutil.copytree(replaced, tmp_path / "d")
    for path in (tmp_path / "d" / "train").iterdir():
        path.unlink()
    generate(FRAGILE, tmp_path / "d", workers=2, progress=False, retries=8)
    assert contents(tmp_path / "d") == contents(replaced)


def test_a_trajectory_that_diverges_with_every_seed_is_recorded_and_the_others_are_made(replaced, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"\(trajectory \d of .*\): try a smaller time step, other options or more"):
        generate(FRAGILE, tmp_path / "d", retries=0)
    manifest = read_manifest(tmp_path / "d")
    assert 1 <= len(manifest.failures) < 4
    assert f"{len(manifest.failures)} failed" in capsys.readouterr().err
    assert {entry.file for split in manifest.shards.values() for entry in split} - manifest.failures.keys() == {
        path.relative_to(tmp_path / "d").as_posix() for path in tmp_path.glob("d/*/*.hdf5")
    }
    assert set(manifest.failures.values()) < set(verify(tmp_path / "d"))
    with pytest.raises(ValueError, match="is unfinished"):
        TrajectoryDataset(tmp_path / "d", "train")
    generate(FRAGILE, tmp_path / "d", progress=False, retries=8)
    assert contents(tmp_path / "d") == contents(replaced)


def test_a_solver_that_fails_says_where(recipe, tmp_path):
    broken = changed(recipe, options={"cells": 8, "pace": -1.0})  # time.sleep refuses it
    message = r"Solver 'advected_heat' with seeds \[.*\] \(train/shard_00000.hdf5\) failed by step 1: sleep .*2 more"
    with pytest.raises(ValueError, match=message):
        generate(broken, tmp_path / "d", progress=False)
    assert len(read_manifest(tmp_path / "d").failures) == 3  # after which it gave up


RECKLESS = Recipe(  # some trajectories outrun this time step, not all
    "turbulence",
    {"resolution": 16, "scale": 1.5, "dt": 0.22, "substeps": 1},
    {"train": 6},
    frames=6,
    batch=2,
)


def test_a_trajectory_that_the_solver_says_to_be_unstable_is_replaced_too(tmp_path, caplog):
    generate(RECKLESS, tmp_path / "d", progress=False, retries=20)
    assert verify(tmp_path / "d") == []
    notes = [note for entry in read_manifest(tmp_path / "d").shards["train"] for note in entry.replaced]
    assert notes
    assert len(notes) < 40
    for note in notes:
        assert re.fullmatch(r"`substeps` \(=1\) is unstable with `dt` .* take `substeps` >= \d+\.", note["reason"])
        assert f"an unstable state by step {note['step']} of the trajectory with seed {note['seed']}" in caplog.text
    with pytest.raises(ValueError, match=r"unstable state by step \d+ .*`substeps` \(=1\) is unstable with `dt`"):
        generate(RECKLESS, tmp_path / "e", progress=False, retries=0)
    failures = read_manifest(tmp_path / "e").failures
    assert failures
    assert all(file in sentence for file, sentence in failures.items())


def test_an_initial_state_that_is_refused_ends_at_once(tmp_path):
    refused = Recipe("turbulence", {"resolution": 16, "scale": 0.01}, {"train": 6}, frames=3, batch=1)
    with pytest.raises(ValueError, match=r"\(train/shard_00000.hdf5\) failed by step 0: `scale` \(=0.01\) leaves no"):
        generate(refused, tmp_path / "d", progress=False)
    assert read_manifest(tmp_path / "d").failures == {}


def test_unknown_solvers_and_options_and_worker_counts(recipe, tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'advected_heat'"):
        generate(changed(recipe, solver="advected_hat"), tmp_path / "d", progress=False)
    with pytest.raises(ValueError, match="Did you mean 'cells'"):
        generate(changed(recipe, options={"cell": 8}), tmp_path / "d", progress=False)
    with pytest.raises(ValueError, match=r"`workers` \(=0\) must be at least 1"):
        generate(recipe, tmp_path / "d", workers=0)
    with pytest.raises(ValueError, match=r"`retries` \(=-1\) must not be negative"):
        generate(recipe, tmp_path / "d", retries=-1)
    assert not (tmp_path / "d").exists()


DISK_FULL = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import advected_heat
from cliffsteer.datasets import Recipe, generate
if __name__ == "__main__":
    recipe = Recipe("advected_heat", {"cells": 16}, {"few": 1, "many": 4}, frames=8, batch=4)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60000, resource.RLIM_INFINITY))
    try:
        generate(recipe, sys.argv[2], workers=2, progress=False)
    except OSError as error:
        print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        generate(recipe, sys.argv[2], progress=False)
        print("resumed")
"""


def test_a_full_disk_keeps_what_is_finished(tmp_path):
    script, out = tmp_path / "script.py", tmp_path / "d"
    script.write_text(DISK_FULL)
    command = [sys.executable, str(script), HERE, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told, resumed = done.stdout.splitlines()
    assert told.startswith(
        f"No space left to write {out}/many/shard_00000.hdf5 ({os.strerror(errno.EFBIG)}): free some"
    )
    assert resumed == "resumed"
    assert verify(out) == []


def test_too_little_space_is_told_before_simulating(recipe, tmp_path):
    vast = changed(recipe, splits={"train": 10**5}, frames=10**9, batch=10**4)
    with pytest.raises(OSError, match=r"No space for the dataset: \d+\.\d GB are still to be written to"):
        generate(vast, tmp_path / "d", progress=False)


def test_progress_goes_to_stderr(tmp_path, capsys):
    recipe = Recipe("advected_heat", {"cells": 4}, {"train": 2}, frames=3)
    generate(recipe, tmp_path / "d", progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "generate advected_heat" in captured.err
    assert "6/6" in captured.err
    generate(recipe, tmp_path / "e", progress=False)
    assert capsys.readouterr().err == ""
