"""torch.func: the spectral way gives what the direct one gives, or says that it cannot."""

import copy

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vmap

from cliffsteer import CliffordAlgebra
from cliffsteer.nn import CliffordSteerableConv

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # PyTorch's, in forward mode

KERNELS = {
    "complete": {},
    "implicit": {"hidden_channels": 2, "layers": 2},
    "conditional": {"hidden_channels": 2, "layers": 2, "condition_channels": 1},
}


def convolution(strategy="direct", kernel="complete"):
    options = {"kernel": kernel, "kernel_options": KERNELS[kernel], "padding": "periodic", "strategy": strategy}
    return CliffordSteerableConv(CliffordAlgebra((1, 1)), 1, 2, 3, **options).double()


def run(conv):
    """The convolution as a function of input and parameters."""
    return lambda x, p: functional_call(conv, p, (x,))


@pytest.fixture
def both():
    """The same convolution with either strategy."""
    direct = convolution()
    spectral = copy.deepcopy(direct)
    spectral.strategy = "spectral"
    return direct, spectral


@pytest.fixture
def point():
    """An input and parameters, and a direction for each."""
    x = torch.randn(2, 1, 4, 5, 5, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in convolution().named_parameters()}
    return (x, parameters), (x.sin(), {name: torch.randn_like(p) for name, p in parameters.items()})


def loss(f, x, p):
    return f(x, p).square().sum()


def in_forward_mode(f, at, direction):
    with forward_ad.dual_level():
        x = forward_ad.make_dual(at[0], direction[0])
        p = {name: forward_ad.make_dual(q, direction[1][name]) for name, q in at[1].items()}
        return tuple(forward_ad.unpack_dual(f(x, p)))


TRANSFORMS = {
    "jvp": lambda f, at, direction: jvp(f, at, direction),
    "jvp, input": lambda f, at, direction: jvp(lambda x: f(x, at[1]), at[:1], direction[:1]),
    "forward mode": in_forward_mode,
    "grad": lambda f, at, _: grad(lambda x, p: loss(f, x, p), argnums=(0, 1))(*at),
    "grad of jvp": lambda f, at, direction: grad(
        lambda p: jvp(lambda x: f(x, p), at[:1], direction[:1])[1].square().sum()
    )(at[1]),
    "jacfwd": lambda f, at, _: jacfwd(lambda x: f(x, at[1]))(at[0][:1, ..., :3, :3]),
    "jacrev": lambda f, at, _: jacrev(lambda x: f(x, at[1]))(at[0][:1, ..., :3, :3]),
    "vmap": lambda f, at, direction: vmap(f, (0, None))(torch.stack([at[0], direction[0]]), at[1]),
    "jvp of vmap": lambda f, at, direction: jvp(lambda x: vmap(f, (1, None))(x[None], at[1]), at[:1], direction[:1]),
    "gradients of each sample": lambda f, at, _: vmap(grad(lambda p, x: loss(f, x[None], p)), (None, 0))(*at[::-1]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_both_ways_agree(name, both, point):
    a, b = (torch.utils._pytree.tree_leaves(TRANSFORMS[name](run(conv), *point)) for conv in both)
    assert any(u.abs().max() > 0 for u in a)
    for u, v in zip(a, b, strict=True):
        assert torch.allclose(u, v, rtol=1e-9, atol=1e-10)


def test_forward_mode_in_evaluation_sees_the_parameters_tangents(both, point):
    """Under no_grad, which does not turn forward mode off, and after a plain evaluation that has kept the kernel."""
    for conv in both:
        conv.eval().requires_grad_(False)
        with torch.no_grad():
            parameters = dict(conv.named_parameters())
            conv(point[0][0])
            (_, change) = jvp(lambda p, conv=conv: run(conv)(point[0][0], p), (parameters,), (point[1][1],))
            (_, again) = in_forward_mode(run(conv), (point[0][0], parameters), (0 * point[0][0], point[1][1]))
            expected = run(conv)(point[0][0], point[1][1])  # it is linear in the parameters
        assert torch.allclose(change, expected)
        assert torch.allclose(again, expected)


def test_the_compiler_sees_the_tangents(both, point):
    (x, parameters), direction = point
    along = torch.compile(lambda x, v: jvp(lambda x: run(both[1])(x, parameters), (x,), (v,))[1], backend="aot_eager")
    assert torch.allclose(
        along(x, direction[0]), run(both[0])(direction[0], parameters) - run(both[0])(0 * x, parameters)
    )


@pytest.mark.parametrize(
    "second",
    [
        lambda f, x: hessian(f)(x),
        lambda f, x: jvp(grad(f), (x,), (x,)),
        lambda f, x: grad(lambda x: grad(f)(x).square().sum())(x),
        lambda f, x: torch.autograd.functional.hessian(f, x),
    ],
    ids=["hessian", "jvp of grad", "grad of grad", "backward twice"],
)
def test_second_derivatives_are_refused_in_a_sentence(second, both, point):
    direct, spectral = both
    (x, parameters), _ = point
    x = x[:1, ..., :3, :3].contiguous()
    second(lambda x: loss(run(direct), x, parameters), x)
    with pytest.raises(RuntimeError, match=r"can be differentiated once .* take `strategy` 'direct'"):
        second(lambda x: loss(run(spectral), x, parameters), x)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize(
    ("strategy", "kernel"),
    [("direct", "complete"), ("spectral", "complete"), ("direct", "implicit"), ("direct", "conditional")],
)
def test_ensembles(strategy, kernel, gradients):
    members = [convolution(strategy, kernel).eval().requires_grad_(gradients) for _ in range(3)]
    stacked, buffers = stack_module_state(members)
    x = torch.randn(2, 1, 4, 5, 5, dtype=torch.float64)
    with torch.set_grad_enabled(gradients):
        for _ in range(2):  # the second time with what the first has kept, if anything
            y = vmap(lambda p, b: functional_call(members[0], (p, b), (x,)))(stacked, buffers)
            assert torch.allclose(y, torch.stack([member(x) for member in members]), rtol=1e-9, atol=1e-10)
