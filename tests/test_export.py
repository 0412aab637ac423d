import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from cliffsteer import CliffordAlgebra, Field, FieldSpec, Grid, Surrogate
from cliffsteer.export import export
from cliffsteer.nn import MVGELU, CliffordSteerableConv, MVLayerNorm, MVLinear
from cliffsteer.nn.freeze import freeze
from cliffsteer.normalization import Normalization

FLOW = FieldSpec(
    (1, 1),
    [
        Field("density", 0),
        Field("velocity", 1, "m/s"),
        Field("force", 1, "m/s^2", "parameter", (0.0, 0.5)),
        Field("viscosity", 0, "m^2/s", "parameter", (0.01,)),
    ],
)
SCALES = Normalization(
    FLOW,
    {"density": 2.0, "velocity": 0.5},
    {"density": 0.3},
    {"density": 0.2, "velocity": 0.05},
    {"force": 0.5, "viscosity": 0.01},
)
SPACETIME = FieldSpec((1, -1, -1), [Field("field", 2, "V/m")])
RUN = """
import json, pathlib, sys
for name in {blocked}:
    sys.modules[name] = None  # importing it is an error
import numpy
frames, parameters = numpy.load("frames.npy"), numpy.load("parameters.npy")
if "torch" not in {blocked}:
    import torch
    torch.set_grad_enabled(False)
    frames, parameters = torch.from_numpy(frames), torch.from_numpy(parameters)
for line in json.loads(pathlib.Path("{file}.json").read_text())["usage"]:
    exec(line)
numpy.save("next_frames.npy", numpy.asarray(next_frames))
"""


def layers(algebra, into, out, padding, kernel="complete"):
    """One of each kind of layer that networks have."""
    return nn.Sequential(
        MVLinear(algebra, into, 2),
        CliffordSteerableConv(algebra, 2, out, 3, kernel=kernel, padding=padding),
        MVLayerNorm(algebra, out),
        MVGELU(),
    )


def surrogate(
    spec=FLOW, normalization=SCALES, history=2, future=1, prediction="delta", shape=(6, 7), kernel="complete"
):
    grid = Grid(shape, 0.5, "slip")
    into = history * spec.n_multivectors + spec.n_parameter_multivectors
    network = layers(spec.algebra, into, future * spec.n_multivectors, grid, kernel)
    return Surrogate(network, spec, grid, 1.5, history, future, normalization, prediction).eval()


def inputs(model, batch=3, shape=None):
    frames = torch.randn(batch, model.history, model.spec.n_blades, *(shape or model.grid.shape))
    frames = frames.masked_fill(~model.occupied, 0)
    return frames, torch.randn(batch, model.spec.n_parameter_blades)


def run_elsewhere(folder, file, blocked, frames, parameters):
    """Run the lines of Python in the JSON file, in a process of its own that lacks the blocked packages."""
    np.save(folder / "frames.npy", frames.numpy())
    np.save(folder / "parameters.npy", parameters.numpy())
    command = [sys.executable, "-c", RUN.format(blocked=blocked, file=file)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return torch.from_numpy(np.load(folder / "next_frames.npy"))


def assert_close(result, expected, tolerance=1e-5):
    assert result.shape == expected.shape
    assert (result - expected).norm() <= tolerance * expected.norm()


def run_onnx(file, **arrays):
    session = pytest.importorskip("onnxruntime").InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == list(arrays)
    (result,) = session.run(None, {name: value.numpy() for name, value in arrays.items()})
    return torch.from_numpy(result), session


# ---------------------------------------------------------------------------------------------------- surrogates


def test_a_surrogate_runs_in_torch_alone(tmp_path):
    model = surrogate(kernel="implicit", future=2, prediction="state")
    file = export(model, tmp_path / "deep" / "down", strategy="spectral")
    assert file == tmp_path / "deep" / "down" / "model.pt2"
    x = inputs(model)
    assert_close(run_elsewhere(file.parent, "model.pt2", ["cliffsteer"], *x), model(*x))


def test_a_surrogate_runs_in_onnx_runtime_alone(tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    model = surrogate()
    export(model, tmp_path, format="onnx")
    x = inputs(model)
    blocked = ["cliffsteer", "torch", "onnx"]
    assert_close(run_elsewhere(tmp_path, "model.onnx", blocked, *x), model(*x))


def test_any_grid_without_parameters_in_spacetime(tmp_path):
    pytest.importorskip("onnxscript")
    model = surrogate(SPACETIME, Normalization(SPACETIME, {"field": 2.0}), shape=(4, 5, 5))
    x, _ = inputs(model, 2, (5, 4, 6))
    result, session = run_onnx(export(model, tmp_path, "onnx", any_grid=True), frames=x)
    assert_close(result, model(x, torch.zeros(2, 0)))
    assert session.get_inputs()[0].shape == ["batch", 2, 8, "n1", "n2", "n3"]
    assert session.get_outputs()[0].name == "next_frames"


def test_the_description_says_all_that_a_reader_needs(tmp_path):
    model = surrogate()
    (tmp_path / "notes.txt").write_text("kept")
    (tmp_path / "model.pt2").write_text("replaced")
    program = torch.export.load(export(model, tmp_path, any_grid=True)).module()
    for batch, shape in [(1, (6, 7)), (2, (9, 5))]:
        x = inputs(model, batch, shape)
        assert_close(program(*x), model(*x))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.pt2", "model.pt2.json", "notes.txt"]
    told = json.loads((tmp_path / "model.pt2.json").read_text())
    assert FieldSpec.from_dict(told["spec"]) == FLOW
    assert Grid.from_dict(told["grid"]) == model.grid
    assert (told["dt"], told["history"], told["future"], told["blades"]) == (1.5, 2, 1, ["1", "e1", "e2", "e12"])
    frames, parameters = told["inputs"]
    assert (frames["name"], frames["shape"], frames["dtype"]) == ("frames", ["batch", 2, 4, "n1", "n2"], "float32")
    assert frames["fields"] == {"density": [0, 1], "velocity": [1, 3]}
    assert parameters["fields"] == {"force": [1, 3], "viscosity": [0, 1]}
    assert parameters["default"] == [0.01, 0.0, 0.5, 0.0]
    assert told["outputs"][0]["shape"] == ["batch", 1, 4, "n1", "n2"]


def test_precision_and_parameters_without_a_default(tmp_path):
    spec = FieldSpec((1,), [Field("density", 0), Field("speed", 1, "m/s", "parameter")])
    model = surrogate(spec, Normalization.identity(spec), shape=(6,)).double()
    program = torch.export.load(export(model, tmp_path)).module()
    x = [value.double() for value in inputs(model)]
    assert_close(program(*x), model(*x), 1e-14)
    told = json.loads((tmp_path / "model.pt2.json").read_text())
    assert [entry["dtype"] for entry in told["inputs"]] == ["float64", "float64"]
    assert told["inputs"][1]["default"] is None


def test_a_frozen_surrogate_is_a_stepper():
    model = surrogate()
    x, _ = inputs(model)
    assert_close(freeze(model).step(x, {"force": (1.0, 2.0)}), model.step(x, {"force": (1.0, 2.0)}), 1e-6)


def test_errors(tmp_path, monkeypatch):
    model, folder = surrogate(), tmp_path / "none"
    with pytest.raises(ValueError, match=r"`format` \(='tflite'\) must be one of 'torch', 'onnx'"):
        export(model, folder, "tflite")
    with pytest.raises(ValueError, match=r"`strategy` \(='auto'\) must be 'direct' with `format` 'onnx'"):
        export(model, folder, "onnx", "auto")
    with pytest.raises(ValueError, match=r"`strategy` \(='spectral'\) must be 'direct' with `any_grid`"):
        export(model, folder, strategy="spectral", any_grid=True)
    with pytest.raises(ValueError, match=r"cannot be frozen: the kernel of network.1"):
        export(surrogate(kernel="conditional"), folder)
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ImportError, match=r"`format` 'onnx' needs onnx and onnxscript: pip install"):
            export(model, folder, "onnx")
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    with pytest.raises(ValueError, match=r"`surrogate` has weights of torch.float64, but ONNX Runtime convolves"):
        export(model.double(), folder, "onnx")
    assert not folder.exists()


# --------------------------------------------------------------------------------------------- networks in ONNX


@pytest.mark.filterwarnings("ignore")  # of the exporter's own
def test_a_frozen_network_on_four_axes_goes_to_onnx_with_any_batch_and_grid(tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    algebra = CliffordAlgebra((1, -1, -1, -1))
    network = nn.Sequential(CliffordSteerableConv(algebra, 1, 2, 3, kernel="complete", padding="mirror"), MVGELU())
    sizes = dict.fromkeys((0, *range(3, 3 + algebra.dim)), torch.export.Dim.DYNAMIC)
    x = torch.randn(2, 1, algebra.n_blades, *range(3, 3 + algebra.dim))
    with torch.no_grad():
        made = torch.onnx.export(freeze(network), (x,), dynamo=True, dynamic_shapes=(sizes,), verbose=False)
        made.save(tmp_path / "network.onnx")
        x = torch.randn(3, 1, algebra.n_blades, *range(3 + algebra.dim, 3, -1))
        assert_close(run_onnx(tmp_path / "network.onnx", input=x)[0], network(x))
