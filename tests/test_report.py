"""The page is one file without links, its table holds the measured numbers, its images are real."""

import base64
import io
import re

import pytest
import torch
from PIL import Image

from cliffsteer.datasets import Recipe, TrajectoryDataset, compute_statistics, generate
from cliffsteer.evaluation import evaluate
from cliffsteer.report import Entry, Loop, versions, write_report
from cliffsteer.report_tables import number
from cliffsteer.surrogate import Surrogate


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory) -> TrajectoryDataset:
    recipe = Recipe("smoke", {"resolution": 12}, {"test": 2}, frames=6, batch=2)
    return TrajectoryDataset(generate(recipe, tmp_path_factory.mktemp("data"), progress=False), "test")


@pytest.fixture(scope="module")
def entries(trajectories) -> list[Entry]:
    made = []
    for name, options in {"csresnet": {"kernel_size": 3}, "resnet": {"kernel_size": 3}}.items():
        torch.manual_seed(0)
        data = (trajectories.spec, trajectories.grid, trajectories.dt, 2, 1, compute_statistics(trajectories))
        surrogate = Surrogate.create({"name": name, "hidden_channels": 2, "blocks": [1], **options}, *data).eval()
        curves = {"train/loss": ([0, 10], [1.0, 0.5]), "valid/loss": ([10], [0.6])}
        metrics = evaluate(surrogate, trajectories, rollout_steps=3)
        made.append(Entry(f"{name} <1>", surrogate, metrics, curves, seconds=75.0))
    return made


def embedded(text: str, kind: str) -> list[Image.Image]:
    return [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(rf'src="data:image/{kind};base64,([A-Za-z0-9+/=]+)"', text)
    ]


@pytest.fixture(scope="module")
def page(entries, trajectories, tmp_path_factory) -> str:
    loop = Loop("In the loop.", {"surrogate": [0.1, 0.2]}, trajectories.dt, {"Speed": "twice"})
    out = tmp_path_factory.mktemp("report") / "new" / "report.html"
    path = write_report(entries, trajectories, out, "A & B", loop, ["cliffsteer demo 'a b'"])
    return path.read_text(encoding="utf-8")


def test_it_is_one_file_without_links(page):
    assert "http" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "<script" not in page
    assert 'name="viewport"' in page


def test_names_and_titles_are_escaped(page):
    assert "<title>A &amp; B</title>" in page
    assert "<td>csresnet &lt;1&gt;</td>" in page
    assert "cliffsteer demo &#39;a b&#39;" in page


def test_the_table_holds_the_measured_numbers(page, entries):
    table = page.partition("Rotated test set")[0]
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(<td>.*?)</tr>", table)]
    assert len(rows) == 3
    for row, entry in zip(rows, entries, strict=False):
        one, many = entry.metrics["one_step"], entry.metrics["rollout"]
        assert row[1] == f"{sum(p.numel() for p in entry.surrogate.parameters()):,}"
        assert row[2] == "1 min 15 s"
        assert row[3] == f"{one['model']['fields']['density']['nrmse'][0]:.4f}"
        assert row[4] == f"{one['model']['fields']['velocity']['nrmse'][0]:.4f}"
        assert row[6] == f"{many['model']['fields']['density']['nrmse'][2]:.4f}"
        ratio = many["model"]["overall"]["nrmse"][2] / many["persistence"]["overall"]["nrmse"][2]
        assert row[8] == f"{ratio:.3f}"
    assert rows[2][0] == "persistence"
    assert rows[2][3] == f"{entries[0].metrics['one_step']['persistence']['fields']['density']['nrmse'][0]:.4f}"
    assert float(rows[0][9]) < 1e-12 < float(rows[1][9])  # equivariant, and not


def test_images_are_there_and_the_animation_moves(page):
    assert len(embedded(page, "png")) == 2 + 2 + 1 + 2 + 1  # errors and correlations per field, losses, panels, loop
    (animation,) = embedded(page, "gif")
    assert animation.n_frames == 3


def test_the_page_has_a_table_for_every_kind_of_metric(page, entries):
    tables = dict(re.findall(r"<h2>(.*?)</h2>\n(.*?)</table>", page, re.DOTALL))
    for title in ("Rotated test set", "How long rollouts last", "Errors by scale", "What rollouts keep"):
        assert len(re.findall("<tr><td>", tables[title])) == len(entries) + (title == "What rollouts keep")
    turned = entries[1].metrics["rotated"]["rollout"]["model"]["overall"]["nrmse"][-1]
    assert f"<td>{turned:.4f}</td>" in tables["Rotated test set"]
    divergence = entries[0].metrics["rollout"]["divergence"]
    for who in ("model", "truth"):
        assert f"<td>{divergence[who]['fields']['velocity'][-1]:.4f}</td>" in tables["What rollouts keep"]
    error = entries[0].metrics["rollout"]["spectrum"]["fields"]["density"]["error"]["high"][-1]
    assert f"<td>{number(error)} (" in tables["Errors by scale"]


def test_what_was_not_measured_is_left_out(entries, trajectories, tmp_path):
    metrics = evaluate(entries[0].surrogate, trajectories, rollout_steps=0, rotated="none")
    page = write_report([Entry("x", entries[0].surrogate, metrics)], trajectories, tmp_path / "r.html").read_text()
    assert "Rotated" not in page
    assert "How long" not in page


def test_versions_and_commands_are_there(page):
    assert f"<dd>{torch.__version__}</dd>" in page
    assert set(versions()) >= {"cliffsteer", "Python", "torch", "phiflow"}


def test_a_diverged_rollout_says_so(entries, trajectories, tmp_path):
    first = entries[0]
    broken = [None, None, None]
    model = first.metrics["rollout"]["model"]
    fields = {name: errors | {"nrmse": broken} for name, errors in model["fields"].items()}
    metrics = first.metrics | {
        "rollout": first.metrics["rollout"]
        | {"model": {"fields": fields, "overall": model["overall"] | {"nrmse": broken}}}
    }
    page = write_report([Entry("x", first.surrogate, metrics)], trajectories, tmp_path / "r.html").read_text()
    assert "<td>diverged</td>" in page


def test_runs_that_were_evaluated_differently_are_refused(entries, trajectories, tmp_path):
    first, second = entries
    data = second.metrics["dataset"]
    for change, message in (
        ({"dataset": second.metrics["dataset"] | {"windows": 3}}, "with windows 3"),
        ({"settings": second.metrics["settings"] | {"rollout_steps": 2}}, "with settings .*'rollout_steps': 2"),
        ({"dataset": data | {"recipe": data["recipe"] | {"seed": 99}}}, "with recipe .*'seed': 99"),
    ):
        other = Entry("other", second.surrogate, second.metrics | change)
        with pytest.raises(ValueError, match=message):
            write_report([first, other], trajectories, tmp_path / "r.html")
    with pytest.raises(ValueError, match="`entries` is empty"):
        write_report([], trajectories, tmp_path / "r.html")
    assert not list(tmp_path.iterdir())
