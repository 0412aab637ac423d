"""What is installed: the package list, light imports, pinned versions, and the built wheel and sdist."""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAPPED = PROJECT["tool"]["setuptools"]["package-dir"]
HEAVY = {"hydra", "omegaconf", "lightning", "phi", "matplotlib", "clifford", "tensorboard", "rich", "jinja2"}


def packages_in_tree() -> set[str]:
    found = set()
    for folder, name in [("cliffsteer", "cliffsteer"), *((folder, name) for name, folder in MAPPED.items())]:
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([name, *init.parent.relative_to(ROOT / folder).parts]))
    return found


def run_python(code: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, env=os.environ | env, timeout=120
    )


def test_every_package_of_the_tree_is_installed():
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages_in_tree()


def test_every_python_file_lies_in_a_package():
    for folder in ("cliffsteer", *MAPPED.values()):
        for file in (ROOT / folder).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), f"{file.parent} holds code but no __init__.py"


@pytest.mark.parametrize("folder", sorted(MAPPED.values()))
def test_mapped_folders_refuse_to_be_imported_by_their_own_name(folder):
    result = run_python(f"import {folder}", ROOT)
    assert result.returncode
    assert "import that name" in result.stderr
    assert f"cliffsteer.{folder}" in result.stderr


@pytest.mark.parametrize("module", ["cliffsteer", "cliffsteer.solvers", "cliffsteer.datasets", "cliffsteer.cli"])
def test_importing_loads_nothing_heavy_beside_torch(module, tmp_path):
    code = f"import sys, torch; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    result = run_python(code, tmp_path)
    assert not result.returncode, result.stderr
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert "cliffsteer" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("module", ["cliffsteer", "cliffsteer.cli"])
def test_the_command_line_starts_without_torch(module, tmp_path):
    result = run_python(f"import sys, {module}; print('torch' in sys.modules, 'numpy' in sys.modules)", tmp_path)
    assert result.stdout.split() == ["False", "False"], result.stderr


def test_every_public_name_is_there_and_loads_nothing_heavy(tmp_path):
    code = (
        "import sys, torch; before = set(sys.modules); import cliffsteer;"
        "[getattr(cliffsteer, name) for name in cliffsteer.__all__]; print(*(set(sys.modules) - before))"
    )
    result = run_python(code, tmp_path)
    assert not result.returncode, result.stderr
    assert not {name.partition(".")[0] for name in result.stdout.split()} & HEAVY


def test_every_dependency_is_pinned_within_its_range():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pins = {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}
    extras = PROJECT["project"]["optional-dependencies"]
    for line in [*PROJECT["project"]["dependencies"], *(line for extra in extras.values() for line in extra)]:
        requirement = Requirement(line)
        if requirement.name == "cliffsteer":  # one extra that takes in others
            assert requirement.extras <= extras.keys()
            continue
        assert requirement.specifier.contains(Version(pins[requirement.name.lower()])), line


def test_the_changelog_has_an_unreleased_section():
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.slow
def test_wheel_and_sdist_hold_code_configs_and_templates(tmp_path):
    build = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", tmp_path, ROOT], capture_output=True, text=True, timeout=600
    )
    assert not build.returncode, build.stdout + build.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        wheel.extractall(tmp_path / "site")
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as sdist:
        sources = {name.partition("/")[2] for name in sdist.getnames()}
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        assert f"{package.replace('.', '/')}/__init__.py" in names
    for config in (ROOT / "conf").rglob("*.yaml"):
        assert f"cliffsteer/conf/{config.relative_to(ROOT / 'conf').as_posix()}" in names
        assert config.relative_to(ROOT).as_posix() in sources
    assert {"cliffsteer/py.typed", "cliffsteer/templates/report.html"} <= names
    assert "LICENSE" in sources
    assert not any(
        name.split("/")[0] in MAPPED.values() for name in names
    )  # no top-level `solvers`, `datasets`, `conf`
    code = "import sys; from cliffsteer.cli import main; sys.exit(main(['info']))"
    result = run_python(code, tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert not result.returncode, result.stderr
    assert "csresnet" in result.stdout
