"""`cliffsteer inspect`: figures and tables of kernels and symmetries, and one line for a mistake."""

import inspect
import json

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from cliffsteer import Surrogate
from cliffsteer.cli import main
from cliffsteer.commands import inspect as verb
from cliffsteer.commands import schema
from cliffsteer.datasets import Recipe, TrajectoryDataset, compute_statistics, generate
from cliffsteer.nn.kernels import KERNELS
from cliffsteer.storage import sha256

SMALL = {"hidden_channels": 2, "blocks": [1], "kernel_size": 3}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A dataset, and surrogates that were trained for no time at all: steerable, plain, and with a wrong padding."""
    folder = tmp_path_factory.mktemp("work")
    recipe = Recipe("smoke", {"resolution": 8, "dt": 3.0}, {"train": 1, "test": 1}, frames=4, batch=1)
    data = TrajectoryDataset(generate(recipe, folder / "data" / "smoke", progress=False), "train")
    torch.manual_seed(0)
    for name, model in {
        "steerable": {"name": "csresnet", "kernel": "implicit"},
        "plain": {"name": "resnet"},
        "one-sided": {"name": "csresnet", "kernel": "complete", "padding": [["zeros", "symmetric"], "zeros"]},
    }.items():
        surrogate = Surrogate.create(model | SMALL, data.spec, data.grid, data.dt, 1, 1, compute_statistics(data))
        surrogate.save_pretrained(folder / "runs" / name / "surrogate", {"data": {"root": "data/smoke"}})
    return folder


@pytest.fixture
def here(work, monkeypatch, tmp_path):
    """Where the runs and the data are; what is written goes elsewhere with `out`."""
    monkeypatch.chdir(work)
    return tmp_path


def width(path) -> int:
    with Image.open(path) as image:
        return image.width


def fault(capsys, *arguments: str) -> str:
    """The one line that a faulty command line ends in."""
    assert main(["inspect", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


# ----------------------------------------------------------------------------------------------------- kernel


def test_a_fresh_kernel_and_its_basis(here, capsys):
    out = here / "figures" / "k.png"
    words = ["signature=[1,-1]", "kernel_size=3", "group=O", "kernel_options.radial=smooth", f"out={out}"]
    assert main(["inspect", "kernel", *words]) == 0
    assert {path.name for path in out.parent.iterdir()} == {"k.png", "k-basis.png"}
    assert min(width(path) for path in out.parent.iterdir()) > 600
    assert f"A fresh kernel: {out}\n" in capsys.readouterr().out


def test_the_seed_and_every_other_key_change_the_figure(here):
    def digest(*words: str) -> str:
        out = here / "k.png"
        assert main(["inspect", "kernel", "kernel_size=3", "draw=[kernel]", f"out={out}", *words]) == 0
        return sha256(out)

    state = torch.random.get_rng_state()
    first = digest()
    assert digest() == first
    assert torch.equal(torch.random.get_rng_state(), state)
    changes = ["seed=1", "kernel=implicit", "group=orthochronous", "kernel_options.radial=smooth", "plane=[0,1]"]
    assert len({first, *map(digest, changes)}) == 1 + len(changes)


def test_the_name_says_the_format(here):
    assert main(["inspect", "kernel", "kernel_size=3", "draw=[kernel]", f"out={here / 'k.SVG'}"]) == 0
    assert [path.name for path in here.iterdir()] == ["k.SVG"]
    assert (here / "k.SVG").read_bytes().startswith(b"<?xml")


def test_a_kernel_of_a_run_stands_beside_it(here, work, capsys):
    assert main(["inspect", "kernel", "run=runs/steerable", "layer=blocks.0.conv2", "out_channel=1"]) == 0
    assert (work / "runs/steerable/kernel-blocks.0.conv2.png").is_file()
    assert (work / "runs/steerable/kernel-blocks.0.conv2-basis.png").is_file()
    assert "The kernel of blocks.0.conv2 of runs/steerable" in capsys.readouterr().out


def test_a_sweep_names_its_figures(here):
    words = ["--multirun", "kernel_size=3,5", "draw=[kernel]", f"out={here / 'k.png'}"]
    assert main(["inspect", "kernel", *words]) == 0
    assert {path.name for path in here.glob("*.png")} == {"k-kernel_size=3.png", "k-kernel_size=5.png"}


# ----------------------------------------------------------------------------------------------- equivariance


def test_a_steerable_run_is_exact_and_every_key_is_read(here, work, capsys):
    command = ["inspect", "equivariance", "run=runs/steerable"]
    assert main([*command, "paddings=[zeros,one-sided]"]) == 0
    out = capsys.readouterr().out
    assert "The whole keeps every one of the 7 symmetries of its grid to rounding" in out
    assert "blocks.0.conv1" in out
    assert "a window of split test of data/smoke" in out
    assert "The grid lacks shift x1" in out
    base = json.loads((work / "runs/steerable/equivariance.json").read_text())
    assert base["run"] == "runs/steerable"
    assert base["input"] == "a window of split test of data/smoke"
    assert {row["cause"] for row in base["layers"]} == {"exact"}
    assert [row["padding"] for row in base["paddings"]] == ["as trained", "zeros", "one-sided"]
    assert width(work / "runs/steerable/equivariance.png") > 1000
    changed = ["elements=generators", "split=train", "wavelength=3", "seed=1", "device=cpu", f"out={here / 'e.png'}"]
    assert main([*command, "paddings=[]", *changed]) == 0
    other = json.loads((here / "e.json").read_text())
    assert other["paddings"] == []
    assert len(other["elements"]) == len(base["elements"]) - 4
    assert other["layers"][0]["float64"] != base["layers"][0]["float64"][: len(other["elements"])]
    assert other["kernels"][0]["sampled"] > base["kernels"][0]["sampled"]
    assert other["kernels"][0]["function"] != base["kernels"][0]["function"]


def test_a_broken_run_is_called_broken_without_a_dataset(here, capsys):
    out = here / "e.png"
    words = ["run=runs/one-sided", f"out={out}", "paddings=[mirror]", "split=null", "root=data/none"]
    assert main(["inspect", "equivariance", *words]) == 0
    text = capsys.readouterr().out
    assert "blocks.0.conv1: broken under e1→−e1" in text
    assert "next to the walls only" in text
    assert "The whole breaks symmetries of its grid: broken under e1→−e1" in text
    assert "on the lattice only" in text
    assert "measured on random fields" in text
    assert json.loads(out.with_suffix(".json").read_text())["input"] == "random fields"


# ---------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [],
            "`cliffsteer inspect` needs a subject: `cliffsteer inspect kernel` or `cliffsteer inspect equivariance` or",
        ),
        (["kernle"], "`inspect kernle` is unknown: did you mean 'kernel'? subjects: kernel, equivariance, data."),
        (["kernel", "split=test"], "`split` is not a key of `inspect kernel`; its keys: run, out, layer"),
        (["equivariance", "run=runs/plain", "kernel_size=3"], "`kernel_size` is not a key of `inspect equivariance`"),
        (["equivariance"], "`run` is missing: give it as `cliffsteer inspect equivariance run=...`."),
        (["kernel", "out=k.gif"], "`out` (=k.gif) must end in .png, .pdf, .svg"),
        (["kernel", "draw=[bases]"], "`draw` (='bases') must be of kernel, basis. Did you mean 'basis'?"),
        (["kernel", "layer=head.0"], "`layer` (='head.0') is a layer of a run: give the run"),
        (["kernel", "run=runs/steerable", "seed=3"], "`seed` is for a fresh kernel: leave it or `run` out."),
        (["kernel", "run=runs/steerable", "layer=blocks.0.conv3"], "Did you mean 'blocks.0.conv2'? Layers: blocks.0."),
        (["kernel", "run=runs/plain"], "`run` (=runs/plain) has no layer with a steerable kernel."),
    ],
)
def test_a_mistake_ends_in_one_line(here, capsys, words, message):
    assert message in fault(capsys, *words)


def test_a_dataset_of_another_grid(here, capsys):
    recipe = Recipe("smoke", {"resolution": 12, "dt": 3.0}, {"test": 1}, frames=3, batch=1)
    root = generate(recipe, here / "other", progress=False)
    line = fault(capsys, "equivariance", "run=runs/steerable", f"root={root}", f"out={here / 'e.png'}")
    assert "`root` has a grid with shape" in line
    assert not list(here.glob("e.*"))


# ------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("subject", schema.SUBJECTS)
def test_help_is_that_of_the_subject(capsys, subject):
    assert main(["inspect", subject, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: cliffsteer inspect {subject} " in text
    keys = text.partition("Keys:\n")[2].partition("\n\n")[0]
    assert ("kernel_size:" in keys) == (subject == "kernel")
    assert ("split:" in keys) == (subject in ("equivariance", "data"))


def test_subjects_have_a_function_and_keys_and_the_kernels_options_exist(capsys):
    assert set(verb.SUBJECTS) == set(schema.SUBJECTS)
    assert main(["inspect", "kernel", "--cfg", "job"]) == 0
    options = OmegaConf.create(capsys.readouterr().out).kernel_options
    known = {name for kernel in KERNELS.values() for name in inspect.signature(kernel).parameters}
    assert set(options) <= known


def test_the_verdict_counts_the_symmetries_that_the_kernels_can_have():
    from cliffsteer.commands.symmetry_table import _verdict

    elements = [
        {"name": name, "missing": "a wall" if name == "shift" else None} for name in ("turn", "mirror", "shift")
    ]
    whole = {"cause": "exact", "outside": ["mirror"], "worst": {"symmetries float32": 1e-7}}
    told = _verdict({"layers": [whole], "elements": elements})
    assert told.startswith(
        "The whole keeps every one of the 1 symmetries of its grid and its kernels' group to rounding"
    )
