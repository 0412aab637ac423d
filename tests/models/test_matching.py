import pytest
import torch

from cliffsteer import CliffordAlgebra, Grid
from cliffsteer.cost import count_weights, flops
from cliffsteer.models import create, matching
from cliffsteer.models.matching import match_width, matched_options
from cliffsteer.nn.kernels import KERNELS

PLANE = CliffordAlgebra((1, 1))
TASK = {"algebra": PLANE, "in_channels": 3, "out_channels": 1, "grid": (16, 16)}
DATA = TASK | {"grid": Grid((16, 16))}
SMALL = {"blocks": (1,), "kernel_size": 3}


def cost(name: str, width: int, by: str) -> int:
    network = create(name, PLANE, 3, 1, hidden_channels=width, **SMALL)
    return count_weights(network) if by == "params" else flops(network, (1, 3, 4, 16, 16))


@pytest.mark.parametrize(
    ("name", "by"),
    [
        *((name, "params") for name in ("resnet", "unet", "csresnet", "steerable_resnet")),
        *((name, "flops") for name in ("csresnet", "resnet", "steerable_resnet")),
    ],
)
def test_no_other_width_is_nearer(name, by):
    target = cost("csresnet", 9, by)
    width = match_width(
        name, SMALL | {"hidden_channels": 77}, create("csresnet", PLANE, 3, 1, hidden_channels=9, **SMALL), by, **TASK
    )
    distance = {w: abs(cost(name, w, by) - target) for w in range(max(1, width - 2), width + 3)}
    assert min(distance, key=distance.get) == width
    assert name != "csresnet" or width == 9


def test_a_number_is_a_target_too(monkeypatch):
    assert match_width("resnet", SMALL, cost("resnet", 1, "params") - 5, **TASK) == 1
    assert match_width("resnet", SMALL, cost("resnet", 7, "params"), **TASK) == 7
    monkeypatch.setattr(matching, "_WIDEST", 16)
    with pytest.raises(ValueError, match=r"`target` \(=1e\+15 params\) is out of reach: 'resnet' has .* at width 16"):
        match_width("resnet", SMALL, 1e15, **TASK)


def test_a_target_that_no_width_comes_near_is_refused_with_what_is_possible(caplog):
    first, second = (cost("resnet", width, "params") for width in (1, 2))
    with pytest.raises(ValueError, match=rf"`target` \(=10 params\) is not met .* has {first} at width 1, {second} at"):
        match_width("resnet", SMALL, 10, **TASK)
    with caplog.at_level("INFO", matching.__name__):
        match_width("resnet", SMALL, 1.05 * cost("resnet", 9, "params"), **TASK)
    assert caplog.messages[-1].startswith("resnet has width 9: ")
    assert caplog.messages[-1].endswith("params, 0.952 of those asked for.")


@pytest.mark.parametrize("options", [*({"kernel": kernel} for kernel in KERNELS), {"nonlinearity": "product"}], ids=str)
def test_networks_are_counted_without_their_weights(options):
    """100,000 channels would fill terabytes; a few are counted as those of the network that is built."""
    model = {"name": "csresnet", "options": SMALL | options, "match": "params"}
    few = matched_options(
        model | {"like": {"name": "csresnet", "options": SMALL | options | {"hidden_channels": 3}}}, **DATA
    )
    assert few["hidden_channels"] == 3
    for by, message in (("params", "is out of reach"), ("flops", "too many to count its operations")):
        like = {"name": "csresnet", "options": SMALL | options | {"hidden_channels": 100_000}}
        with pytest.raises(ValueError, match=message):
            matched_options({"name": "resnet", "options": SMALL, "match": by, "like": like}, **DATA)


def test_options_of_a_config_get_the_width():
    like = {"name": "csresnet", "options": {"hidden_channels": 6, **SMALL}}
    model = {"name": "resnet", "options": {"hidden_channels": 99, **SMALL}, "match": "params", "like": like}
    options = matched_options(model, **DATA)
    target = create("csresnet", PLANE, 3, 1, hidden_channels=6, **SMALL)
    assert options == SMALL | {"hidden_channels": match_width("resnet", SMALL, target, **TASK)}
    for none in (None, "none"):
        assert matched_options({"name": "resnet", "options": SMALL, "match": none, "like": like}, **DATA) == SMALL


def test_matching_draws_nothing():
    like = {"name": "csresnet", "options": SMALL}
    torch.manual_seed(0)
    matched_options({"name": "resnet", "options": SMALL, "match": "params", "like": like}, **DATA)
    first = torch.randn(3)
    torch.manual_seed(0)
    assert torch.equal(torch.randn(3), first)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"match": "parms", "like": {"name": "resnet"}}, r"`match` \(='parms'\) must be .*Did you mean 'params'\?"),
        ({"match": "params"}, r"`model.like` \(=None\) must name the network that `model.match` \(='params'\)"),
        ({"match": "params", "like": {"options": {}}}, r"`model.like` \(=.*\) must name the network"),
        ({"match": "params", "like": {"name": "resnet", "width": 3}}, r"`model.like` \(=.*\) must name the network"),
        ({"match": "params", "like": {"name": "resnt"}}, r"`model` \(='resnt'\) is unknown: did you mean 'resnet'"),
    ],
    ids=str,
)
def test_errors(model, message):
    with pytest.raises(ValueError, match=message):
        matched_options({"name": "resnet", "options": SMALL} | model, **DATA)
