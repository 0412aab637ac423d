"""The published code's outputs and gradients, reproduced in float64."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.interop.jax_reference import (
    build,
    from_reference,
    load_parameters,
    reference_parameters,
    to_reference,
)
from cliffsteer.nn import GradeNorm, ImplicitKernel, MVLinear

GOLDEN = Path(__file__).parents[1] / "golden" / "reference"
CASES = sorted(p.stem for p in GOLDEN.glob("*.npz"))
TOLERANCE = 1e-10


def relative(a, b):
    b = torch.as_tensor(b)
    return float(((a - b).norm() / b.norm()).detach())


def load(case):
    data = np.load(GOLDEN / f"{case}.npz")
    _, _, what = case.split("_", 2)
    params = {k.removeprefix("param/"): data[k] for k in data.files if k.startswith("param/")}
    return data, tuple(int(s) for s in data["metric"]), what, params


def built(case, **options):
    data, signature, what, params = load(case)
    config = json.loads(str(data["config"]))
    if "input" in data.files:
        config.setdefault("features", data["input"].shape[1])
    module = build(what.split("_")[0], signature, config, **options)
    return data, load_parameters(module, params), params


@pytest.mark.parametrize("case", [c for c in CASES if "algebra" in c])
def test_algebra(case):
    data, signature, _, _ = load(case)
    algebra = CliffordAlgebra(signature)
    a, b = torch.from_numpy(data["a"]), torch.from_numpy(data["b"])
    assert np.array_equal(algebra.cayley, data["cayley"])
    assert np.array_equal(np.argwhere(data["geometric_product_paths"]), algebra.paths)
    assert relative(algebra.geometric_product(a, b), data["geometric_product"]) < TOLERANCE
    assert relative(algebra.reverse(a), data["beta"]) < TOLERANCE
    assert relative(algebra.scalar_product(a, b), data["b_form"]) < TOLERANCE
    assert relative(algebra.quadratic_form(a), data["q"]) < TOLERANCE
    assert relative(algebra.quadratic_forms(a), data["qs"]) < TOLERANCE


@pytest.mark.parametrize("case", [c for c in CASES if "_kernel" in c])
def test_kernel(case):
    data, kernel, _ = built(case, rounded_q="lightcone" in case)
    q = kernel.q[kernel.orbit].detach().numpy()
    assert np.abs(q - data["mid/q"].ravel()).max() <= (0 if "lightcone" in case else 1e-15)
    assert relative(kernel(), data["output"]) < TOLERANCE


def test_exact_q_differs_from_the_published_code_on_the_light_cone_only():
    data, kernel, _ = built("cl_mpp_kernel_k7_lightcone")
    null = kernel.q[kernel.orbit].detach() == 0
    wrong = torch.from_numpy(data["mid/q"].ravel() < 0) & null
    assert (int(null.sum()), int(wrong.sum())) == (25, 16)
    ours, theirs = kernel().detach().flatten(2), torch.from_numpy(data["output"]).flatten(2)
    assert relative(ours[..., ~wrong], theirs[..., ~wrong]) < TOLERANCE
    assert relative(ours, theirs) > 0.5


@pytest.mark.parametrize("case", [c for c in CASES if not any(w in c for w in ("algebra", "_kernel", "csresnet"))])
def test_layer(case):
    data, module, _ = built(case)
    output = to_reference(module(from_reference(torch.from_numpy(data["input"]))))
    assert relative(output, data["output"]) < TOLERANCE


@pytest.mark.parametrize("case", [c for c in CASES if "csresnet" in c])
def test_network_and_gradients(case):
    data, network, params = built(case)
    x = torch.from_numpy(data["input"]).requires_grad_()
    output = to_reference(network(from_reference(x)))
    assert relative(output, data["output"]) < TOLERANCE
    loss = 0.5 * output.square().mean()
    loss.backward()
    assert relative(loss, data["loss"]) < TOLERANCE
    assert relative(x.grad, data["grad_input"]) < TOLERANCE

    live = {path: (t.grad, convert) for path, t, convert in reference_parameters(network)}
    if "gradnorms_sorted_by_param_path" in data.files:
        norms = torch.stack([live[p][0].norm() for p in sorted(params)])
        assert relative(norms, data["gradnorms_sorted_by_param_path"]) < TOLERANCE
    else:
        for path, (gradient, convert) in live.items():
            theirs = torch.from_numpy(data[f"grad/{path}"])
            ours = convert(theirs) - convert(torch.zeros_like(theirs))
            scale = max(float(theirs.norm()), 1e-6)
            assert (gradient - ours).norm() <= TOLERANCE * scale, path
            assert abs(theirs.norm() - ours.norm()) <= TOLERANCE * scale, f"{path}: a weight left out has a gradient"


def test_every_error_names_the_parameter():
    algebra = CliffordAlgebra((1, 1))
    linear = MVLinear(algebra, 2, 3)
    good = {"weight": np.zeros((3, 2, 3)), "bias": np.zeros((1, 3, 1))}
    load_parameters(linear, good)
    with pytest.raises(ValueError, match=r"`params` lacks 'bias', which MVLinear needs"):
        load_parameters(linear, {"weight": good["weight"]})
    with pytest.raises(ValueError, match=r"`params` has 'more', for which MVLinear has no place"):
        load_parameters(linear, {**good, "more": np.zeros(1)})
    with pytest.raises(ValueError, match=r"`params\['weight'\]` has shape \(1, 2, 3\), which does not fit \(3, 2, 3\)"):
        load_parameters(linear, {**good, "weight": np.zeros((1, 2, 3))})
    with pytest.raises(TypeError, match=r"`module` is a ReLU"):
        load_parameters(torch.nn.ReLU(), {})
    with pytest.raises(ValueError, match=r"`kind` \(='cnn'\) must be one of"):
        build("cnn", (1, 1), {})


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (GradeNorm(CliffordAlgebra((1, 1)), 3), r"\(a GradeNorm\) must be built with norm='reference'"),
        (ImplicitKernel(CliffordAlgebra((1, 1)), 1, 1, 3), r"must be built with (norm|gain)='reference'"),
        (ImplicitKernel(CliffordAlgebra((1, 1)), 1, 1, 3, norm="reference"), r"must be built with gain='reference'"),
    ],
    ids=["grade norm", "kernel", "gain"],
)
def test_modules_that_would_compute_something_else_are_refused(module, message):
    with pytest.raises(ValueError, match=message):
        load_parameters(module, {})


def test_bad_configs():
    with pytest.raises(ValueError, match=r"`config` lacks 'c_in'"):
        build("kernel", (1, 1), {})
    with pytest.raises(ValueError, match=r"`bias_dims` \(=\[3\]\) must be \[0\] or empty"):
        build("mvlinear", (1, 1), {"in_features": 1, "out_features": 1, "bias_dims": [3]})
