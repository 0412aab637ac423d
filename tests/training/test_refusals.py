"""What training refuses to go on from, to begin with, or to go on with."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_runs import scalars

from cliffsteer.datasets import Recipe, generate, read_manifest
from cliffsteer.training import train
from cliffsteer.training.guard import DivergenceError


def test_another_run_in_the_folder_is_not_continued(small, tmp_path):
    run = train(small(steps=1), tmp_path / "run")
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.raises(ValueError, match=r"holds a run with `optimizer.lr` 0.005, this one has 0.5"):
        train(small(lr=0.5), run)
    with pytest.raises(ValueError, match=r"holds a run with `prediction` delta, this one has state"):
        train(small(prediction="state"), run)
    with pytest.raises(ValueError, match=r"`out` \(=.*\) holds a run already"):
        train(small(steps=1), run, resume=False)
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before


def test_data_of_another_system_are_not_trained_on_further(small, tmp_path):
    run = train(small(steps=1), tmp_path / "run")
    recipe = Recipe("smoke", {"resolution": 16, "dt": 1.5}, {"train": 1, "valid": 1}, frames=9)
    other = generate(recipe, tmp_path / "data", progress=False)
    with pytest.raises(ValueError, match=r"`data.root` \(=.*\) holds other fields, another grid or time step"):
        train(small(root=str(other)), run)


def test_other_trajectories_are_not_trained_on_further(small, tmp_path):
    config = small(steps=1)
    run = train(config, tmp_path / "run")
    moved = Path(shutil.copytree(config.data.root, tmp_path / "moved"))
    train(small(steps=2, root=str(moved)), run)
    recipe = read_manifest(config.data.root).recipe
    other = generate(replace(recipe, seed=recipe.seed + 100), tmp_path / "other", progress=False)
    with pytest.raises(
        ValueError, match=r"`data.root` \(=.*other\) holds other trajectories than this run was trained on"
    ):
        train(small(steps=3, root=str(other)), run)
    last = run / "checkpoints" / "last.ckpt"
    edit(last, lambda c: c.pop("data"))  # a checkpoint of before
    train(small(steps=3, root=str(other)), run)


def test_weights_to_start_from_are_not_taken_on_the_way(small, tmp_path):
    run = train(small(steps=1), tmp_path / "run")
    config = small(steps=2)
    config.model.weights = "nowhere"
    with pytest.raises(ValueError, match=r"holds a run with `model.weights` none, this one has nowhere"):
        train(config, run)


def test_fewer_steps_than_are_done_are_refused(small, tmp_path):
    run = train(small(steps=3), tmp_path / "run")
    assert train(small(steps=2), run) == run  # trained already
    shutil.rmtree(run / "surrogate")
    with pytest.raises(ValueError, match=r"`trainer.steps` \(=2\): .* has done 3 already; give as many or more"):
        train(small(steps=2), run)


def test_more_processes_than_windows_to_validate_on_are_refused(small, tmp_path):
    config = small()
    config.trainer.devices, config.data.valid_stride = 64, 100
    config.data.batch_size = 64
    with pytest.raises(ValueError, match=r"`trainer.devices` × `trainer.nodes` \(=64\) are more than the \d+ windows"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize("keep", [0, 100, -1000])
def test_a_damaged_checkpoint(small, tmp_path, keep):
    run = train(small(steps=1), tmp_path / "run")
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"last.ckpt` is damaged or no checkpoint"):
        train(small(), run)


def edit(last, change):
    checkpoint = torch.load(last, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, last)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format_version=99), r"last.ckpt` has format version 99, this cliffsteer goes on from"),
        (lambda c: c.pop("format_version"), r"last.ckpt` has format version None"),
        (lambda c: c["state_dict"].popitem(), r"last.ckpt` does not fit the network: 1 weight"),
        (
            lambda c: c["state_dict"].update({k: v[..., None] for k, v in list(c["state_dict"].items())[:2]}),
            r"last.ckpt` does not fit the network: 2 weight",
        ),
        (lambda c: c.pop("optimizer_states"), r"last.ckpt` is damaged or no checkpoint"),
    ],
)
def test_a_checkpoint_that_cannot_be_taken_up(small, tmp_path, change, message):
    run = train(small(steps=1), tmp_path / "run")
    edit(run / "checkpoints" / "last.ckpt", change)
    with pytest.raises(ValueError, match=message):
        train(small(), run)


def test_a_network_that_does_not_fit_the_grid_is_refused_before_it_trains(small, tmp_path):
    config = small()
    config.model.name, config.model.options["kernel_size"] = "csresnet", 33
    with pytest.raises(ValueError, match=r"`model` does not fit the data: the grid \(16, 16\) is smaller"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_diverging_training_stops_and_keeps_the_last_good_checkpoint(small, tmp_path):
    config = small(lr=1e20, gradient_clip=0.0, checkpoint_every=1, warmup_steps=0, steps=50, validate_every=50)
    config.optimizer.name = "sgd"
    with pytest.raises(
        DivergenceError, match=r"Training diverged: the .* is not a number at step \d+; try .* keeps the last good"
    ):
        train(config, tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values())
    assert not (tmp_path / "run" / "surrogate").exists()


def test_a_training_whose_loss_stays_high_stops_with_the_checkpoint_of_before(small, tmp_path):
    config = small(lr=5.0, warmup_steps=400, steps=400, validate_every=100, checkpoint_every=10)
    config.trainer.divergence_factor, config.trainer.divergence_steps = 3.0, 15
    run = tmp_path / "run"
    with pytest.raises(DivergenceError) as caught:
        train(config, run)
    last = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    step, text = checkpoint["global_step"], str(caught.value)
    assert re.search(r"the loss \(=.*\) has been more than 3 times its best \(.*\) for 15 steps at step \d+; try", text)
    assert text.endswith(
        f"{last} keeps the last good weights, of step {step}: start from them with `model.weights={last}`."
    )
    assert int(re.search(r"at step (\d+)", text)[1]) > step + 15
    assert checkpoint["guard"]["high"] == 0
    best = checkpoint["guard"]["best"]
    calmer = small(lr=1e-3, steps=4)
    calmer.model.weights = str(last)
    assert max(scalars(train(calmer, tmp_path / "calmer"))[0]["train/loss"].values()) < 5 * best


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"history": 9}, r"`history` \(=9\) and `future` \(=1\) need 10 frames"),
        (
            {"loss": {"name": "unrolled", "unroll": 8}},
            r"`loss.unroll` \(=8\) needs windows of .* = 10 frames, but .* 9",
        ),
        ({"model": {"name": "csresnet", "options": {"width": 3}}}, "has no option 'width'"),
        ({"model": {"name": "csresnett", "options": {}}}, "did you mean 'csresnet'"),
    ],
)
def test_refusals(small, tmp_path, change, message):
    config = small().to_dict()
    (config["data"] if "history" in change else config).update(change)
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "run")


def test_half_precision_needs_what_scales_its_gradients(small, tmp_path):
    with pytest.raises(ValueError, match=r"`trainer.precision` \(='16-mixed'\) needs a CUDA device: .* `precision=bf"):
        train(small(precision="16-mixed", accelerator="cpu"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_dataset(small, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(small(root=str(tmp_path / "nowhere")), tmp_path / "run")


def test_a_dataset_without_validation_split(small, tmp_path):
    recipe = Recipe("smoke", {"resolution": 16, "dt": 3.0}, {"train": 1}, frames=4)
    root = generate(recipe, tmp_path / "data", progress=False)
    with pytest.raises(ValueError, match=r"`split` \(='valid'\) is not in"):
        train(small(root=str(root)), tmp_path / "run")
