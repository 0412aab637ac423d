import dataclasses
import re

from PIL import Image

from cliffsteer.datasets import Recipe, TrajectoryDataset, generate, read_manifest
from cliffsteer.datasets.card import MARK, system, write_card
from cliffsteer.solvers import create


def test_the_card_says_what_the_data_are(finished):
    text = (finished / "README.md").read_text()
    for words in (
        "# advected_heat",
        "Exact solution of ∂ₜT + w·∇T = κ ∇²T",
        "Nothing: the solution is exact.",
        "| flux | 1 (vector) | 2 | K m/s | dynamic |",
        "| x | 8 | 0.125 m | 1 m | periodic |",
        "11 frames a trajectory, 0.1 s apart",
        "| train | 5 | 55 | 3 |",
        "The seed of the dataset is 3.",
        "No trajectory diverged.",
        "| heat |",
        '"conductivity": 0.02',
        "torch 2.",
        "cliffsteer generate '~recipe' solver=advected_heat ++solver.cells=8 ++splits.train=5 ++splits.valid=2 ",
    ):
        assert words in text, words
    assert re.search(r"Cost: 10 solver steps on 64 cells for each trajectory; [\d.e-]+ s for each, on one thread", text)
    rms = TrajectoryDataset(finished, "valid").read(0)[:, 0].double().mean()
    assert re.search(rf"\| valid \| temperature \| K \| {rms:.0f}", text)
    with Image.open(finished / "frames.png") as picture:
        assert picture.width > 500


def test_all_but_the_cost_is_the_same_every_time(dataset):
    before = (dataset / "README.md").read_text().splitlines()
    picture = (dataset / "frames.png").read_bytes()
    after = write_card(dataset).read_text().splitlines()
    differing = [line for line, other in zip(before, after, strict=True) if line != other]
    assert [line[:6] for line in differing] == ["Cost: "]
    assert "the time was not measured" in next(line for line in after if line.startswith("Cost"))
    assert (dataset / "frames.png").read_bytes() == picture


def test_the_caption_says_which_slice_of_a_block_is_shown(tmp_path):
    recipe = Recipe("advected_heat", {"cells": 4, "dim": 3}, {"train": 1}, frames=2)
    text = (generate(recipe, tmp_path / "d", progress=False) / "README.md").read_text()
    assert "on one colour scale per field; of the grid the slice z[2] of 0..3.*" in text


def test_a_card_that_somebody_took_over_is_left_alone(dataset, recipe):
    (dataset / "README.md").write_text("My own words.\n")
    (dataset / "train" / "shard_00000.hdf5").unlink()
    generate(recipe, dataset, progress=False)
    assert (dataset / "README.md").read_text() == "My own words.\n"
    (dataset / "README.md").unlink()
    generate(recipe, dataset, progress=False)
    assert (dataset / "README.md").read_text().startswith(MARK)


def test_no_card_when_none_is_asked_for(tmp_path):
    small = Recipe("advected_heat", {"cells": 4}, {"train": 1}, frames=2)
    generate(small, tmp_path / "d", progress=False, card=False)
    assert not (tmp_path / "d" / "README.md").exists()


def test_the_equation_keeps_its_indent_and_a_solver_from_elsewhere_needs_none(dataset):
    assert system(create("smoke")).startswith("    ∂ₜu + (u·∇)u")
    assert system(create("advected_heat")) == ""
    manifest = read_manifest(dataset)
    gone = dataclasses.replace(manifest, recipe=dataclasses.replace(manifest.recipe, solver="gone"))
    gone.write(dataset)
    assert "# gone" in write_card(dataset).read_text()
