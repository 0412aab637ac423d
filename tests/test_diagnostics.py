"""The diagnosis of a surrogate finds what breaks its symmetries, says what it is, and accuses nothing else."""

import json
import math

import pytest
import torch
from torch import nn

from cliffsteer import Field, FieldSpec, Grid, Surrogate
from cliffsteer.diagnostics import PADDINGS, diagnose, random_input
from cliffsteer.layer_errors import EXACT, kernels_of
from cliffsteer.nn import CliffordSteerableConv
from cliffsteer.normalization import Normalization

SPEC = FieldSpec(
    (1, 1),
    [Field("density", 0), Field("velocity", 1, "m/s"), Field("force", 1, "m/s^2", "parameter", (0.0, 0.5))],
)
SPACETIME = FieldSpec((1, -1), [Field("E", 1, "V/m")])
GRID = Grid((10, 10), 0.5, "slip")


def make(spec=SPEC, grid=GRID, name="csresnet", **options) -> Surrogate:
    options = {"hidden_channels": 3, "blocks": [1], "kernel_size": 3} | options
    scales = Normalization(spec, {f.name: 0.5 for f in spec.dynamic}, None, None, {f.name: 2 for f in spec.parameters})
    return Surrogate.create({"name": name, **options}, spec, grid, 1.0, 2, 1, scales).eval()


def row(result, name: str) -> dict:
    return next(row for row in result["layers"] if row["name"] == name)


def causes(result) -> dict[str, str]:
    return {row["name"]: row["cause"] for row in result["layers"]}


def by_padding(result) -> dict[str, dict]:
    return {row["padding"]: row for row in result["paddings"]}


class PlainConv(nn.Module):
    """An ordinary convolution of multivectors, as if their blades were channels."""

    def __init__(self, channels: int, blades: int):
        super().__init__()
        self.conv = nn.Conv2d(channels * blades, channels * blades, 3, padding=1)
        self.blades = blades

    def forward(self, x):
        return self.conv(x.flatten(1, 2)).unflatten(1, (-1, self.blades))


class Coarse(nn.Module):
    """A strided convolution, and every value twice."""

    def __init__(self, algebra, channels: int):
        super().__init__()
        self.conv = CliffordSteerableConv(algebra, channels, channels, 3, stride=2)

    def forward(self, x):
        return self.conv(x).repeat_interleave(2, -1).repeat_interleave(2, -2)


# -------------------------------------------------------------------------------------------- what is in order


@pytest.mark.parametrize("kernel", ["complete", "implicit"])
@pytest.mark.parametrize("padding", ["zeros", "mirror"])
def test_a_steerable_network_is_exact_in_float64_and_rounded_in_float32(kernel, padding):
    # a norm over all points would bring what the walls do to every cell
    result = diagnose(make(kernel=kernel, padding=padding, norm="layer"), paddings=[])
    assert set(causes(result).values()) == {"exact"}
    assert len(result["elements"]) == 7 + 2
    worst = row(result, "surrogate")["worst"]
    assert worst["symmetries"] < EXACT
    assert 1e-9 < worst["symmetries float32"] < 1e-4
    assert worst["lacking"] is None
    assert worst["translations"] > 1e-2 > EXACT > worst["translations interior"]


def test_every_layer_is_measured_on_the_input_that_it_meets():
    surrogate = make()
    names = [row["name"] for row in diagnose(surrogate, paddings=[])["layers"]]
    assert names[:3] == ["surrogate", "network", "stem.0"]
    assert {"blocks.0", "blocks.0.conv1", "blocks.0.norm2", "blocks.0.activation", "head.2"} <= set(names)
    assert not any("kernel" in name or ".padding" in name for name in names)
    with torch.no_grad():
        surrogate.network.stem[0].weight.zero_()  # whatever comes in, nothing goes on
        surrogate.network.stem[0].bias.zero_()
    errors = row(diagnose(surrogate, paddings=[]), "blocks.0.norm1")["float64"]
    assert errors == [0.0] * 9


def test_the_surrogate_itself_stays_as_it_was():
    surrogate = make()
    before = {name: value.clone() for name, value in surrogate.state_dict().items()}
    diagnose(surrogate)
    assert surrogate.dtype == torch.float32
    assert all(torch.equal(value, before[name]) for name, value in surrogate.state_dict().items())
    assert not any(module._forward_hooks for module in surrogate.modules())


def test_the_result_is_json_and_the_same_every_time():
    surrogate = make(kernel="implicit")
    state = torch.random.get_rng_state()
    first, second = (json.dumps(diagnose(surrogate, paddings=["zeros"]), allow_nan=False) for _ in range(2))
    assert first == second
    assert torch.equal(torch.random.get_rng_state(), state)


def test_given_fields_are_measured_with_the_parameters_given_or_the_defaults():
    surrogate = make()
    frames, packed = random_input(surrogate)
    assert frames.shape == (1, 2, 4, 10, 10)
    assert frames[:, :, 3].eq(0).all()
    assert packed[0].ne(0).tolist() == [False, True, True, False]
    for given in (packed, None):
        result = diagnose(surrogate, frames, given, paddings=[])
        assert result["input"] == "given fields"
        assert row(result, "surrogate")["cause"] == "exact"


# --------------------------------------------------------------------------------------------- what is broken


def test_a_plain_convolution_is_found_and_nothing_else_is_accused():
    surrogate = make()
    surrogate.network.blocks[0].conv2 = PlainConv(3, 4)
    result = diagnose(surrogate, paddings=[])
    broken = {name: cause for name, cause in causes(result).items() if cause != "exact"}
    assert broken == {"surrogate": "part", "network": "part", "blocks.0": "part", "blocks.0.conv2": "layer"}
    assert min(row(result, "blocks.0.conv2")["interior"][:7]) > 0.1
    assert "by blocks.0.conv2" in row(result, "surrogate")["because"]
    assert "PlainConv" in row(result, "blocks.0.conv2")["because"]


def test_a_plain_network_can_be_measured_as_a_whole_only():
    result = diagnose(make(name="resnet"), paddings=["mirror", "periodic"])
    assert causes(result) == {"surrogate": "part", "network": "layer"}
    assert row(result, "surrogate")["worst"]["symmetries"] > 0.1
    assert any("do not map one multivector field to another" in note for note in result["notes"])
    assert "plain channels have none" in by_padding(result)["mirror"]["note"]
    assert by_padding(result)["periodic"]["change"] > 0


def test_a_padding_that_differs_on_the_two_sides_is_found_by_being_exact_away_from_the_walls():
    result = diagnose(make(padding=[["zeros", "mirror"], ["zeros", "mirror"]]), paddings=[])
    for name in ("blocks.0.conv1", "blocks.0.conv2"):
        found = row(result, name)
        assert found["cause"] == "padding"
        assert found["worst"]["symmetries"] > 1e-2
        assert found["worst"]["symmetries interior"] < EXACT
    assert causes(result)["blocks.0"] == "part"
    assert causes(result)["blocks.0.norm1"] == "exact"


def test_walls_in_the_padding_of_a_periodic_grid_are_found_by_translations():
    grid = Grid((10, 10))
    result = diagnose(make(grid=grid, padding="zeros"), paddings=["grid"])
    assert row(result, "blocks.0.conv1")["cause"] == "padding"
    assert "under shift x1 and 1 more" in row(result, "blocks.0.conv1")["because"]
    assert by_padding(result)["grid"]["translations"] < EXACT
    assert set(causes(diagnose(make(grid=grid, padding="periodic"), paddings=[])).values()) == {"exact"}


def test_a_stride_on_an_even_grid_is_the_lattice_s():
    surrogate = make()
    surrogate.network.blocks[0].conv1 = Coarse(SPEC.algebra, 3)
    result = diagnose(surrogate, paddings=[])
    assert row(result, "blocks.0.conv1.conv")["cause"] == "lattice"
    assert "a stride of 2" in row(result, "blocks.0.conv1.conv")["because"]


def test_coarser_grids_inside_keep_symmetries_and_shifts_by_several_cells():
    options = {"blocks": [1, 1], "padding": "periodic", "hidden_channels": 2}
    result = diagnose(make(grid=Grid((8, 8)), name="csunet", **options), paddings=[])
    found = row(result, "network")
    assert found["worst"]["symmetries"] < EXACT < found["worst"]["translations"]
    assert found["cause"] == "lattice"
    assert "shifts by several cells" in found["because"]
    assert set(found["interior"]) == {None}
    assert row(result, "coarser.0.0")["float64"][7:] == [None, None]
    assert {name for name, cause in causes(result).items() if cause != "exact"} == {"surrogate", "network"}


def test_where_every_cell_reads_the_padding_the_layer_is_not_accused():
    result = diagnose(make(grid=Grid((4, 4), 1.0, "slip"), name="resnet"), paddings=[])
    assert row(result, "network")["cause"] == "unclear"
    assert "may be the cause as well as the layer" in row(result, "network")["because"]


def test_a_broken_weight_is_told_from_a_broken_symmetry():
    surrogate = make()
    with torch.no_grad():
        surrogate.network.head[2].weight[0, 0, 0] = math.nan
    result = diagnose(surrogate, paddings=[])
    assert causes(result)["head.2"] == "numbers"
    assert causes(result)["head.0"] == "exact"


# ------------------------------------------------------------------------------------------- grids and groups


def test_what_the_grid_lacks_a_network_may_have_until_its_padding_tells_the_sides_apart():
    grid = Grid((10, 10), 0.5, (("slip", "open"), "periodic"))
    result = diagnose(make(grid=grid, padding="zeros"), paddings=["grid"])
    assert [g["name"] for g in result["elements"] if not g["missing"]] == ["e2→−e2", "shift x2"]
    assert row(result, "surrogate")["worst"]["lacking"] < EXACT
    of_the_grid = by_padding(result)["grid"]
    assert of_the_grid["symmetries"] < EXACT
    assert of_the_grid["lacking"] > 1e-2


def test_axes_of_different_length_are_not_exchanged():
    result = diagnose(make(grid=Grid((10, 8), 0.5, "slip")), paddings=[])
    swapped = [i for i, g in enumerate(result["elements"]) if g["missing"] == "axes 1 and 2 differ in length"]
    assert len(swapped) == 4
    assert all(row(result, "blocks.0.conv1")[key][i] is None for key in ("float64", "interior") for i in swapped)
    assert causes(result)["surrogate"] == "exact"


def test_symmetries_outside_of_a_kernel_s_group_do_not_count_as_broken():
    result = diagnose(make(kernel="complete", kernel_options={"group": "SO"}), paddings=[])
    found = row(result, "blocks.0.conv1")
    assert found["cause"] == "exact"
    assert len(found["outside"]) == 4  # reflections
    reflection = next(i for i, g in enumerate(result["elements"]) if g["name"] == "e1→−e1")
    assert found["float64"][reflection] > 1e-2
    assert row(result, "stem.0")["outside"] == []


def test_symmetries_outside_of_a_network_s_lattice_group_do_not_count_as_broken():
    result = diagnose(make(name="steerable_resnet", hidden_channels=1, group="SO"), paddings=[])
    assert set(causes(result).values()) == {"exact"}


def test_causal_networks_of_spacetime_keep_all_but_time_reversal():
    options = {"radial": "smooth", "group": "orthochronous", "causal": True}
    grid = Grid((8, 10))
    result = diagnose(make(SPACETIME, grid, kernel="complete", kernel_options=options, padding="periodic"), paddings=[])
    assert causes(result)["surrogate"] == "exact"
    assert row(result, "surrogate")["outside"] == ["e1→−e1", "e1→−e1, e2→−e2"]
    assert [g["kind"] for g in result["turns"]] == ["boost"]
    assert max(kernel["function"][0] for kernel in result["kernels"]) < EXACT
    assert min(kernel["sampled"][0] for kernel in result["kernels"]) > 0.1


# ------------------------------------------------------------------------------------------ paddings, kernels


def test_every_mode_of_padding_commutes_and_one_that_is_one_sided_does_not():
    result = diagnose(make(padding="mirror"))
    found = by_padding(result)
    assert list(found) == ["as trained", *PADDINGS]
    for name in set(PADDINGS) - {"one-sided"}:
        assert found[name]["symmetries"] < EXACT
    assert found["one-sided"]["symmetries"] > 1e-2
    assert found["as trained"]["change"] == found["mirror"]["change"] == found["grid"]["change"] == 0
    assert found["zeros"]["change"] > 1e-2
    assert found["periodic"]["translations"] < EXACT < found["mirror"]["translations"]


def test_pointwise_layers_and_kernels_are_turned_by_any_angle_convolutions_are_not():
    result = diagnose(make(kernel="implicit"), paddings=[])
    assert [g["name"] for g in result["turns"]] == ["40° in e12"]
    assert row(result, "blocks.0.conv1")["turns"] is None
    assert row(result, "blocks.0")["turns"] is None
    assert row(result, "blocks.0.norm1")["turns"][0] < EXACT
    first, second = result["kernels"]
    assert (first["name"], second["name"]) == ("blocks.0.conv1", "blocks.0.conv2")
    assert first["function"][0] < EXACT < first["sampled"][0]
    assert first["note"] is None


def test_a_pointwise_layer_that_keeps_the_lattice_s_symmetries_only_is_found():
    class Cube(nn.Module):
        def forward(self, x):
            return x**3

    surrogate = make()
    surrogate.network.blocks[0].norm1 = Cube()
    found = row(diagnose(surrogate, paddings=[]), "blocks.0.norm1")
    assert found["cause"] == "exact"
    assert found["turns"][0] > 1e-2


def test_free_radial_values_are_defined_on_the_lattice_only():
    result = diagnose(make(kernel="complete"), paddings=[])
    assert [kernel["function"] for kernel in result["kernels"]] == [None, None]
    assert all(0 < kernel["sampled"][0] < 1 for kernel in result["kernels"])
    assert result["notes"] == [kernel["note"] for kernel in result["kernels"][:1]]
    assert "on the lattice only" in result["notes"][0]


def test_a_kernel_that_depends_on_the_input_is_skipped_with_a_sentence():
    class Kernel(nn.Module):
        def forward(self, x):
            return x.mean((0, 3, 4))

    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = Kernel()

        def forward(self, x):
            return x * self.kernel(x).mean(0)[:1, None, None]  # by the mean of the scalars

    surrogate = make()
    surrogate.network.blocks[0].conv1 = Conditional()
    result = diagnose(surrogate, paddings=[])
    assert causes(result)["blocks.0.conv1"] == "exact"
    kernel = next(kernel for kernel in result["kernels"] if kernel["name"] == "blocks.0.conv1")
    assert kernel["function"] is kernel["sampled"] is None
    assert "values depend on the input" in kernel["note"]
    assert kernel["note"] in result["notes"]


def test_kernels_by_the_names_of_their_layers():
    assert list(kernels_of(make(pointwise="kernel").network)) == [
        *("stem.0", "stem.2", "blocks.0.conv1", "blocks.0.conv2", "head.0", "head.2")
    ]


def test_refusals():
    with pytest.raises(ValueError, match=r"`paddings` \(='miror'\) must be of 'grid', 'zeros'"):
        diagnose(make(), paddings=["miror"])
    with pytest.raises(ValueError, match=r"`elements` \(='most'\)"):
        diagnose(make(), elements="most")
    with pytest.raises(ValueError, match="the axes after"):
        diagnose(make(), torch.zeros(1, 2, 4, 5, 10))
    with pytest.raises(ValueError, match=r"`wavelength` \(=0.0\) must be positive"):
        diagnose(make(), wavelength=0.0)
