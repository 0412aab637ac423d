"""The command line: every verb on real, tiny data; every fault of a user ends in one line and exit code 2."""

import contextlib
import html
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from cliffsteer.cli import VERBS, _thread_failed, main
from cliffsteer.commands.errors import describe
from cliffsteer.storage import sha256

GENERATE = ["generate", "solver.resolution=12", "n=6", "frames=8", "progress=false"]
TINY = [
    *("trainer.steps=4", "trainer.validate_every=4", "trainer.checkpoint_every=0", "trainer.progress=false"),
    *("trainer.rollout_steps=0", "data.batch_size=4", "schedule.warmup_steps=1"),
    *("model.options.hidden_channels=2", "model.options.blocks=[1]", "model.options.kernel_size=3"),
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    """A folder in which a newcomer generated, trained and evaluated once, by the commands of the README."""
    folder = tmp_path_factory.mktemp("workdir")
    with contextlib.chdir(folder):
        assert main(GENERATE) == 0
        assert main(["train", "experiment=smoke", *TINY]) == 0
        assert main(["evaluate", "run=runs/smoke-csresnet", "steps=3"]) == 0
    return folder


@pytest.fixture
def here(workdir, tmp_path, monkeypatch) -> Path:
    """A copy of it, and the current folder."""
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(*arguments: str, cwd: Path, **options) -> subprocess.Popen:
    code = "import sys; from cliffsteer.cli import main; sys.exit(main())"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=cwd, **pipes | options)


def fault(capsys, *arguments: str) -> str:
    """The one line that a faulty command line ends in."""
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("cliffsteer: ")
    assert "Traceback" not in lines[0]
    return lines[0]


# ------------------------------------------------------------------------------------------------ what it does


def test_help_lists_every_verb(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in VERBS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("cliffsteer 0.")


@pytest.mark.parametrize("verb", VERBS)
def test_options_of_hydra_work_after_every_verb(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([verb, "--help"]) == 0
    assert f"Usage: cliffsteer {verb}" in capsys.readouterr().out
    assert main([verb, "--cfg", "job"]) == 0
    assert capsys.readouterr().out.strip()
    assert not any(tmp_path.iterdir())


def test_the_steps_of_the_readme_leave_data_and_runs_and_nothing_else(workdir):
    assert {entry.name for entry in workdir.iterdir()} == {"data", "runs"}
    run = workdir / "runs" / "smoke-csresnet"
    assert {"config.yaml", "checkpoints", "surrogate", "tensorboard", "metrics.json"} <= {e.name for e in run.iterdir()}
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["dataset"]["trajectories"] == 1
    assert metrics["rollout"]["steps"] == 3


def test_evaluate_writes_a_table(here, capsys):
    assert main(["evaluate", "run=runs/smoke-csresnet", "steps=2"]) == 0
    out = capsys.readouterr().out
    assert "one step" in out
    assert "2 steps" in out
    assert "8 symmetries" in out


def test_a_second_call_reuses_the_data_and_the_run(here, capsys):
    weights = (here / "runs/smoke-csresnet/surrogate/model.safetensors").read_bytes()
    assert main(GENERATE) == 0
    assert main(["train", "experiment=smoke", *TINY]) == 0
    assert "trained already" in capsys.readouterr().err
    assert (here / "runs/smoke-csresnet/surrogate/model.safetensors").read_bytes() == weights


def test_the_config_of_a_run_trains_it_again(here, capsys):
    kept = here / "runs" / "smoke-csresnet"
    weights = (kept / "surrogate" / "model.safetensors").read_bytes()
    again = ["train", "--config-dir", str(kept), "--config-name", "config", "out=runs/again"]
    assert main(again) == 0
    assert (here / "runs/again/surrogate/model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("coupling", ["replace", "alternate"])
def test_rollout_writes_frames_errors_and_an_animation(here, capsys, coupling):
    arguments = ["steps=3", f"coupling={coupling}", "surrogate_steps=2", "out=rolled", "field=velocity"]
    assert main(["rollout", "run=runs/smoke-csresnet", *arguments]) == 0
    with np.load(here / "rolled" / "rollout.npz") as frames:
        assert frames["density"].shape == (3, 12, 12)
        assert frames["velocity"].shape == frames["truth_velocity"].shape == (3, 2, 12, 12)
        assert frames["time"] == pytest.approx([1.5, 3.0, 4.5])
        first = np.abs(frames["density"][0] - frames["truth_density"][0]).max()
    assert (first < 1e-5) == (coupling == "alternate")  # the solver goes first there, and it made the data
    assert {"errors_density.png", "errors_velocity.png", "rollout.gif"} <= {e.name for e in (here / "rolled").iterdir()}
    assert "velocity" in capsys.readouterr().out


def test_a_rollout_may_go_beyond_the_stored_frames(here, capsys):
    assert main(["rollout", "run=runs/smoke-csresnet", "steps=9", "out=rolled"]) == 0
    assert "NRMSE after 7 steps" in capsys.readouterr().out
    with np.load(here / "rolled" / "rollout.npz") as frames:
        assert len(frames["density"]) == 9
        assert len(frames["truth_density"]) == 7


def test_report_shows_the_run_with_its_training(here, capsys):
    assert main(["report", "runs=[runs/smoke-csresnet]", "out=page.html", "title=My page"]) == 0
    page = (here / "page.html").read_text()
    assert "<title>My page</title>" in page
    assert "loss during training" in page
    assert (
        "cliffsteer train --config-dir runs/smoke-csresnet --config-name config out=runs/smoke-csresnet-again" in page
    )
    assert re.search(r"<td>smoke-csresnet</td><td>[\d,]+</td><td>\d+ s</td>", page)


def test_info_lists_everything_in_one_line_each(here, capsys):
    shutil.copytree("runs/smoke-csresnet/checkpoints", "runs/killed/checkpoints")
    assert main(["info"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"runs/smoke-csresnet evaluated", "runs/killed unfinished"} <= set(lines)
    for name in ("smoke_phiflow", "csresnet", "resnet", "data/smoke", "smoke"):
        assert any(line.startswith(f"{name} ") for line in lines), lines


def test_a_sweep_gives_every_job_its_folder(here, capsys):
    assert main(["train", "--multirun", "experiment=smoke", "trainer.seed=1,2", *TINY]) == 0
    runs = {entry.name for entry in (here / "runs").iterdir() if entry.is_dir()} - {"smoke-csresnet"}
    assert runs == {"smoke-csresnet-trainer.seed=1", "smoke-csresnet-trainer.seed=2"}
    assert {entry.name for entry in here.iterdir()} == {"data", "runs"}


# ------------------------------------------------------------------------------------------- faults of the user


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "`trian` is no verb of cliffsteer: did you mean 'train'?"),
        (["generate", "solver=smok"], "`solver` (='smok') is unknown: did you mean 'smoke'?"),
        (["train", "model=csresnt"], "`model` (='csresnt') is unknown: did you mean 'csresnet'?"),
        (["train", "experiment=nothing"], "`experiment` (='nothing') is unknown; available: "),
        (
            ["train", "trainer.step=3"],
            "`trainer.step` is not a key of `cliffsteer train`: did you mean 'trainer.steps'?",
        ),
        (["train", "lr=3"], "`lr` is not a key of `cliffsteer train`: did you mean 'optimizer.lr'?"),
        (["train", "modle=resnet"], "did you mean 'model'?"),
        (["generate", "solver.resolutoin=8"], "did you mean 'solver.resolution'?"),
        (
            ["generate", "solver=wave", "solver.viscosity=1"],
            "`solver.viscosity` is not in the config of the chosen option",
        ),
        (["generate", "+solver.colour=8"], "`colour` is no option of solver 'smoke'"),
        (["train", "trainer.steps=many"], "`trainer.steps=many`: value 'many' of type 'str' could not be converted"),
        (["train", "trainer.steps=0"], "`trainer.steps` (=0) must be at least 1"),
        (["train", "steps"], "`steps` is no override: write key=value"),
        (["train", "--multrun"], "`--multrun` is no option: did you mean '--multirun'?"),
        (["train", "--cfg", "jobs"], "invalid choice: 'jobs'"),
        (["train", "--config-name", "mine"], "There is no config 'mine'"),
        (["train", "data.root=nowhere"], "nowhere"),
        (["verify"], "`root` is missing: give it as `cliffsteer verify root=...`"),
        (["evaluate", "run=runs/none"], "`run` (=runs/none) does not exist"),
        (["evaluate", "run=data"], "`run` (=data) holds no surrogate"),
        (["report"], "`runs` is empty"),
        (["evaluate", "run=runs/smoke-csresnet", "steps=-1"], "`steps` (=-1) must be at least 0"),
        (["evaluate", "run=runs/smoke-csresnet", "batch_size=0"], "`batch_size` (=0) must be at least 1"),
        (["generate", "splits={}", "out=new"], "`splits` is empty"),
        (["generate", "out="], "`out` is empty"),
        (["generate", "+a=1", "out=new"], "`a` is not a key of `cliffsteer generate`"),
        (["generate", "out=runs/smoke-csresnet"], "`out` (=runs/smoke-csresnet) holds checkpoints but no dataset.json"),
        (["train", "experiment=smoke", "out=data/smoke"], "`out` (=data/smoke) holds a dataset"),
        (["info", "show=[solver]"], "`show` (='solver') is no section: did you mean 'solvers'?"),
        (["rollout", "run=runs/smoke-csresnet", "coupling=alternat"], "did you mean 'alternate'?"),
        (["rollout", "run=runs/smoke-csresnet", "field=speed"], "No field 'speed'"),
        (["rollout", "run=runs/smoke-csresnet", "start=7"], "`start` (=7) leaves nothing to compare with"),
        (["evaluate", "run=runs/smoke-csresnet", "split=tset"], "`split` (='tset') is not in data/smoke"),
        (["generate", "solver.resolution=16", "n=6", "frames=8"], "holds a dataset of another recipe"),
        (["train", "experiment=smoke", *TINY, "optimizer.lr=1"], "`out` (=runs/smoke-csresnet) holds a run with"),
        (["train", "experiment=smoke", "data.hidden=buoyancy"], "`data.hidden` (=buoyancy) must be a list: write"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_faulty_command_lines_end_in_one_line(workdir, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(workdir)
    before = sorted(workdir.rglob("*"))
    assert message in fault(capsys, *arguments)
    assert sorted(workdir.rglob("*")) == before  # and leave nothing behind


def test_a_truncated_shard(here, capsys):
    shard = here / "data/smoke/train/shard_00000.hdf5"
    os.truncate(shard, 5000)
    assert "shard_00000.hdf5 has 5000 bytes instead of" in fault(capsys, "train", "experiment=smoke", "name=x", *TINY)
    assert main(["verify", "root=data/smoke"]) == 2
    assert main(GENERATE) == 0  # makes it anew
    assert main(["verify", "root=data/smoke"]) == 0


def test_a_shard_of_another_spec(here, capsys):
    shard = here / "data/smoke/train/shard_00000.hdf5"
    size = shard.stat().st_size
    with h5py.File(shard, "r+") as file:
        text = file["cliffsteer"].attrs["spec"]
        file["cliffsteer"].attrs["spec"] = text.replace("m/s", "km/h"[:3])
    os.truncate(shard, size)
    line = fault(capsys, "train", "experiment=smoke", "name=x", *TINY)
    assert "shard_00000.hdf5" in line


def test_nan_in_the_data(here, capsys):
    shard, manifest = here / "data/smoke/train/shard_00000.hdf5", here / "data/smoke/dataset.json"
    before = sha256(shard)
    with h5py.File(shard, "r+") as file:
        file["t0_fields/density"][1, 3, 2, 2] = float("nan")
    manifest.write_text(manifest.read_text().replace(before, sha256(shard)))
    assert "NaN" in fault(capsys, "train", "experiment=smoke", "name=x", *TINY)


def test_a_checkpoint_of_another_version(here, capsys):
    config = here / "runs/smoke-csresnet/surrogate/config.json"
    config.write_text(config.read_text().replace('"format_version": 2', '"format_version": 99'))
    assert "has format version 99" in fault(capsys, "evaluate", "run=runs/smoke-csresnet")


def test_a_grid_smaller_than_the_kernel_is_refused_before_anything_is_written(here, capsys):
    line = fault(capsys, "train", "experiment=smoke", "name=x", *TINY, "model.options.kernel_size=27")
    assert "`kernel_size`" in line
    assert not (here / "runs/x").exists()


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_flipped_byte_in_a_shard(here, capsys, verb):
    shard = here / "data/smoke" / {"train": "valid", "evaluate": "test"}[verb] / "shard_00000.hdf5"
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    arguments = {"train": ["experiment=smoke", "name=x", *TINY], "evaluate": ["run=runs/smoke-csresnet"]}[verb]
    assert "shard_00000.hdf5 differs from its checksum" in fault(capsys, verb, *arguments)
    assert not (here / "runs/x").exists()


def test_rollouts_of_an_evaluation_end_with_the_trajectories(here, capsys):
    assert main(["evaluate", "run=runs/smoke-csresnet", "steps=70"]) == 0
    assert "`steps` (=70)" in capsys.readouterr().err
    assert json.loads((here / "runs/smoke-csresnet/metrics.json").read_text())["rollout"]["steps"] == 7


def test_options_may_stand_between_overrides(workdir, capsys, monkeypatch):
    monkeypatch.chdir(workdir)
    assert main(["train", "trainer.steps=7", "--cfg", "job", "trainer.log_every=3", "--package", "trainer"]) == 0
    out = capsys.readouterr().out
    assert "steps: 7" in out
    assert "log_every: 3" in out
    assert "batch_size" not in out


def test_the_config_is_there_from_the_start(here, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning.pytorch.Trainer.fit", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["train", "experiment=smoke", "name=x", *TINY]) == 130
    assert "name: x" in (here / "runs/x/config.yaml").read_text()


def test_the_commands_of_a_report_make_it_again(here, capsys):
    shutil.move(here / "runs/smoke-csresnet", here / "runs/lr=0.1,a b")  # like the folders of a sweep
    assert main(["report", "runs='runs/lr=0.1,a b'", "out=page.html"]) == 0  # one run needs no brackets
    block = html.unescape((here / "page.html").read_text())
    lines = re.findall(r"cliffsteer (?:generate|train|evaluate|report) [^<\n]+", block)
    assert [line.split()[1] for line in lines] == ["generate", "train", "evaluate", "report"]
    files = ("data/smoke/dataset.json", "runs/lr=0.1,a b/surrogate/model.safetensors")
    before = [(here / file).read_bytes() for file in files]
    shutil.rmtree(here / "data")
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    again = [(here / file.replace("a b/", "a b-again/")).read_bytes() for file in files]
    assert again == before


def test_an_interrupt_at_any_moment_of_the_start_is_one_line(here):
    for seconds in (0.3, 0.8, 2.0):
        with shell("train", "experiment=smoke", "name=x", *TINY, "trainer.steps=100000", cwd=here) as process:
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130, (seconds, err)
        assert "Traceback" not in err, (seconds, err)
        assert len(err.splitlines()) == 1, (seconds, err)


def test_an_interrupt_while_workers_start_is_one_line(here):
    for seconds in (0.1, 1.0):
        out = here / f"data/more{seconds}"
        arguments = [*GENERATE, "solver.resolution=64", "n=40", "frames=200", "workers=2", f"out={out}"]
        with shell(*arguments, cwd=here, start_new_session=True) as process:
            while not (out / "dataset.json").exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(seconds)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
            _, err = process.communicate(timeout=100)
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert err.splitlines()[-1].startswith("cliffsteer: Interrupted.")


@pytest.mark.parametrize("arguments", [[*GENERATE, "out=data/more"], ["train", "experiment=smoke", "name=x", *TINY]])
def test_no_disk_space(here, arguments):
    """A limit on the size of files stands in for a full disk: both refuse the write."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))  # noqa: E731
    with shell(*arguments, cwd=here, preexec_fn=limit) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert "No space left" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert main(["verify", "root=data/smoke"]) == 0
    assert not list(here.rglob("*.tmp"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_thread_of_tensorboard_that_cannot_write_leaves_the_message_to_us(monkeypatch, capsys):
    from tensorboard.summary.writer.event_file_writer import _AsyncWriter
    from tensorboard.summary.writer.record_writer import RecordWriter

    monkeypatch.setattr(threading, "excepthook", _thread_failed)
    with open("/dev/full", "wb", buffering=0) as full:
        writer = _AsyncWriter(RecordWriter(full))
        writer._byte_queue.put(b"event")
        writer._worker.join(20)
        with pytest.raises(OSError, match="No space left") as caught:
            writer.flush()
    assert capsys.readouterr().err == ""
    assert describe(caught.value)[0].startswith("No space left on the disk")


@pytest.mark.parametrize(
    ("sent", "code", "line"),
    [(signal.SIGINT, 130, "cliffsteer: Interrupted."), (signal.SIGTERM, 143, "Terminated.")],
    ids=["SIGINT", "SIGTERM"],
)
def test_a_signal_ends_a_training_in_one_line_and_it_goes_on_afterwards(here, capsys, sent, code, line):
    long = [*TINY, "trainer.steps=100000", "trainer.checkpoint_every=2", "trainer.validate_every=50000"]
    checkpoint = here / "runs/x/checkpoints/last.ckpt"
    deadline = time.monotonic() + 100
    with shell("train", "experiment=smoke", "name=x", *long, cwd=here) as process:
        while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(sent)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert err.splitlines()[-1] == f"{line} What is written stays; the same command goes on from there."
    assert "Traceback" not in err
    done = torch.load(checkpoint, weights_only=True)["global_step"]
    assert main(["train", "experiment=smoke", "name=x", *long, f"trainer.steps={done + 2}"]) == 0
    assert torch.load(checkpoint, weights_only=True)["global_step"] == done + 2


def test_debugging_shows_the_traceback(workdir, monkeypatch, capsys):
    monkeypatch.chdir(workdir)
    monkeypatch.setenv("CLIFFSTEER_DEBUG", "1")
    assert main(["evaluate", "run=runs/none"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_fault(workdir):
    with shell("info", cwd=workdir) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 0
