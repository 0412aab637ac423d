"""docs/plugins.md is true: its package installs, is found by name, passes its own test and makes a dataset."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"


def files() -> dict[str, str]:
    """The code blocks that begin with the path of a file."""
    blocks = re.findall(r"```\w+\n# (heat-plugin/\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return dict(blocks)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the package is installed in, and that of its source."""
    root = tmp_path_factory.mktemp("plugin")
    for name, text in files().items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    site = root / "site"
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    run(root, *pip, "--no-index", "--target", str(site), str(root / "heat-plugin"))
    (root / "heat-plugin" / "heat_plugin.py").unlink()  # the installed one is what must be found
    return site, root / "heat-plugin"


def run(cwd: Path, *arguments: str, site: Path | None = None) -> str:
    """Output of a Python process that must succeed."""
    path = {"PYTHONPATH": str(site)} if site else {}
    environment = os.environ | path | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_the_solver_is_short():
    assert len(files()["heat-plugin/heat_plugin.py"].strip().splitlines()) < 50


def test_the_page_names_its_files():
    assert set(files()) == {
        f"heat-plugin/{name}" for name in ("pyproject.toml", "heat_plugin.py", "test_heat_plugin.py")
    }


def test_it_is_found_by_its_entry_point_and_passes_its_own_test(installed):
    site, source = installed
    assert list(site.glob("heat_plugin-*.dist-info/entry_points.txt"))
    out = run(source, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_heat_plugin.py", site=site)
    assert "4 passed" in out
    code = "from cliffsteer.solvers import create; print(create('heat', dim=3, resolution=4).spec)"
    assert run(source, "-c", code, site=site).startswith("FieldSpec((1, 1, 1), temperature: grade 0 [K] dynamic")


def test_the_command_line_makes_a_dataset_with_it(installed, tmp_path):
    site, _ = installed
    overrides = ["solver=heat", "+solver.resolution=8", "n=3", "frames=2", "skip=0", "out=heat", "progress=false"]
    run(
        tmp_path,
        "-c",
        "import sys; from cliffsteer.cli import main; sys.exit(main())",
        "generate",
        *overrides,
        site=site,
    )
    assert len(list((tmp_path / "heat").glob("*/*.hdf5"))) == 3


def test_without_the_package_there_is_no_such_solver():
    code = (
        "from cliffsteer.solvers import create\ntry:\n    create('heat')\nexcept ValueError as error:\n    print(error)"
    )
    assert "`solver` (='heat') is unknown" in run(PAGE.parent, "-c", code)
