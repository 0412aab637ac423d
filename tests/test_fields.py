import numpy as np
import pytest
import torch

from cliffsteer import CliffordAlgebra, Field, FieldSpec, Grid
from cliffsteer.symmetry import lattice_symmetries

SMOKE = FieldSpec(
    (1, 1),
    [
        Field("density", 0),
        Field("velocity", 1, "m/s"),
        Field("buoyancy", 1, "m/s^2", "parameter", (0.0, 0.5)),
        Field("viscosity", 0, "m^2/s", "parameter"),
    ],
)


def test_pack_places_fields_on_their_blades():
    density, velocity = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 2, 4, 5)
    frames = SMOKE.pack({"density": density, "velocity": velocity})
    assert frames.shape == (2, 3, 4, 4, 5)
    assert torch.equal(frames[:, :, 0], density)
    assert torch.equal(frames[:, :, 1:3], velocity)
    assert not frames[:, :, 3].any()
    assert SMOKE.occupied.tolist() == [True, True, True, False]
    unpacked = SMOKE.unpack(frames)
    assert torch.equal(unpacked["density"], density.unsqueeze(2))
    assert torch.equal(unpacked["velocity"], velocity)
    assert unpacked["velocity"].data_ptr() == frames[:, :, 1:].data_ptr()


@pytest.mark.parametrize("signature", [(1,), (1, 1), (1, -1, -1), (1, -1, -1, -1)], ids=str)
def test_every_grade_round_trips_and_two_of_a_grade_take_two_multivectors(signature):
    algebra = CliffordAlgebra(signature)
    fields = [Field(f"f{k}", k) for k in range(algebra.n_grades)] + [Field("second", 0)]
    spec = FieldSpec(signature, fields)
    assert (spec.n_multivectors, spec.n_blades) == (2, 2 * algebra.n_blades)
    values = {f.name: torch.randn(1, 2, algebra.grade_size(f.grade), *[3] * algebra.dim) for f in fields}
    frames = spec.pack(values)
    for name, value in spec.unpack(frames).items():
        assert torch.equal(value, values[name])
    assert int(spec.occupied.sum()) == algebra.n_blades + 1


def test_specs_survive_json():
    import json

    assert FieldSpec.from_dict(json.loads(json.dumps(SMOKE.to_dict()))) == SMOKE


def test_parameters_take_defaults_and_broadcast():
    packed = SMOKE.pack_parameters({"viscosity": 0.25}, batch=3)
    assert packed.shape == (3, 4)
    assert packed.tolist() == [[0.25, 0.0, 0.5, 0.0]] * 3
    packed = SMOKE.pack_parameters({"viscosity": [1.0, 2.0, 3.0], "buoyancy": torch.ones(3, 2)}, batch=3)
    assert packed[:, 0].tolist() == [1, 2, 3]
    assert SMOKE.unpack_parameters(packed)["buoyancy"].tolist() == [[1, 1]] * 3


@pytest.mark.parametrize("element", list(lattice_symmetries(CliffordAlgebra((1, 1)))), ids=str)
def test_grid_symmetries_act_on_named_fields(element):
    """Values move and vector components turn; a scalar stays, a vector parameter turns alike."""
    density, velocity = torch.randn(1, 1, 6, 6), torch.randn(1, 1, 2, 6, 6)
    turned = SMOKE.unpack(element.act(SMOKE.algebra, SMOKE.pack({"density": density, "velocity": velocity})))
    assert torch.equal(turned["density"].squeeze(2), element.move(density))
    matrix = element.matrix.float()
    assert torch.equal(turned["velocity"], torch.einsum("ij,btjxy->btixy", matrix, element.move(velocity)))
    packed = SMOKE.pack_parameters({"viscosity": 1.0}, 1)
    buoyancy = SMOKE.unpack_parameters(element.turn(SMOKE.algebra, packed))["buoyancy"]
    assert torch.equal(buoyancy[0], matrix @ torch.tensor([0.0, 0.5]))


def test_errors_are_sentences():
    with pytest.raises(ValueError, match=r"`grade` of field 'B' \(=3\) must be in 0..2"):
        FieldSpec((1, 1), [Field("B", 3)])
    with pytest.raises(ValueError, match=r"`grade` of field 'B' \(=0.5\) must be in 0..2 .* a whole number"):
        FieldSpec((1, 1), [Field("B", 0.5)])
    with pytest.raises(ValueError, match=r"`default` of field 'u' \(=\(1.0,\)\) has no meaning, the field is dynamic"):
        FieldSpec((1, 1), [Field("u", 0, default=(1.0,))])
    with pytest.raises(ValueError, match=r"`default` of field 'g' \(=0.5\) must be a tuple of numbers"):
        Field("g", 0, role="parameter", default=0.5)
    with pytest.raises(ValueError, match=r"`fields` names 'u' more than once"):
        FieldSpec((1, 1), [Field("u", 0), Field("u", 1)])
    with pytest.raises(ValueError, match=r"`fields` holds no dynamic field"):
        FieldSpec((1, 1), [Field("u", 0, role="parameter")])
    with pytest.raises(ValueError, match=r"`role` of field 'u' \(='static'\)"):
        FieldSpec((1, 1), [Field("u", 0, role="static")])
    with pytest.raises(ValueError, match=r"`default` of field 'g' \(=\(1.0,\)\) must have 2 component"):
        FieldSpec((1, 1), [Field("u", 0), Field("g", 1, role="parameter", default=(1.0,))])
    density, velocity = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 2, 4, 4)
    with pytest.raises(ValueError, match=r"`values` lacks the dynamic field 'velocity'"):
        SMOKE.pack({"density": density})
    with pytest.raises(ValueError, match=r"`values` has no dynamic field 'pressure'"):
        SMOKE.pack({"density": density, "velocity": velocity, "pressure": density})
    with pytest.raises(
        ValueError, match=r"`velocity` has shape \(1, 1, 3, 4, 4\), expected \(batch, time, 2, \*grid\)"
    ):
        SMOKE.pack({"density": density, "velocity": torch.zeros(1, 1, 3, 4, 4)})
    with pytest.raises(ValueError, match=r"fields of one frame must share batch, time and grid"):
        SMOKE.pack({"density": density, "velocity": torch.zeros(1, 1, 2, 5, 4)})
    with pytest.raises(ValueError, match=r"`frames` has shape \(1, 1, 3, 4, 4\), expected \(batch, time, 4, X1, X2\)"):
        SMOKE.unpack(torch.zeros(1, 1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"`parameters` lacks 'viscosity', which has no default"):
        SMOKE.pack_parameters(None, 1)
    with pytest.raises(ValueError, match=r"`parameters` has no field 'gravity'"):
        SMOKE.pack_parameters({"gravity": 1.0}, 1)
    with pytest.raises(ValueError, match=r"`buoyancy` has shape \(3,\), not \(2, 2\) or \(2,\)"):
        SMOKE.pack_parameters({"viscosity": 1.0, "buoyancy": (1.0, 2.0, 3.0)}, 2)
    for words in ("x", ["x", "y"], [1.0, None], {"x": 1.0}):
        with pytest.raises(
            ValueError, match=r"`buoyancy` \(=.*\) must be numbers, of shape \(2, 2\) or \(2,\): grade 1 has"
        ):
            SMOKE.pack_parameters({"viscosity": 1.0, "buoyancy": words}, 2)
    with pytest.raises(ValueError, match=r"No field 'pressure'; this system has 'density'"):
        SMOKE["pressure"]


def test_fields_of_several_dtypes_are_promoted():
    density, velocity = torch.ones(1, 1, 4, 4, dtype=torch.int64), torch.full((1, 1, 2, 4, 4), 0.25)
    frames = SMOKE.pack({"density": density, "velocity": velocity})
    assert (frames.dtype, float(frames[0, 0, 1, 0, 0])) == (torch.float32, 0.25)
    assert SMOKE.pack({"density": density.float(), "velocity": velocity.double()}).dtype == torch.float64
    assert SMOKE.pack({"density": density, "velocity": velocity.int()}).dtype == torch.get_default_dtype()


def test_a_list_of_defaults_is_a_tuple():
    field = Field("g", np.int64(1), role="parameter", default=[0, 1])
    assert field == Field("g", 1, role="parameter", default=(0.0, 1.0))
    assert hash(FieldSpec((1, 1), [Field("u", 0), field])) == hash(FieldSpec((1, 1), [Field("u", 0), field]))


@pytest.mark.parametrize("spacing", [np.float32(0.5), np.array(0.5), torch.tensor(0.5), np.full(2, 0.5), [0.5, 0.5]])
def test_spacing_may_be_of_numpy_or_torch(spacing):
    assert Grid(np.array([4, 8]), spacing) == Grid((4, 8), 0.5)


def test_grid_describes_itself():
    import json

    grid = Grid((8, 16), (0.5, 0.25), ("periodic", ("slip", "open")), "cm")
    assert Grid.from_dict(json.loads(json.dumps(grid.to_dict()))) == grid
    assert grid.extent == (4.0, 4.0)
    assert not grid.is_periodic
    assert grid.coordinates()[1, 0, :2].tolist() == [0.125, 0.375]
    assert grid.coarsened(2) == Grid((4, 8), (1.0, 0.5), ("periodic", ("slip", "open")), "cm")
    with pytest.raises(ValueError, match=r"`factor` \(=3\) must divide"):
        grid.coarsened(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (0, 4)}, r"`shape` \(=\(0, 4\)\) must hold a positive whole number of cells"),
        ({"shape": 8}, r"`shape` \(=8\) must hold a positive whole number of cells for each axis, as in"),
        ({"shape": (4.5, 4)}, r"`shape` \(=\(4.5, 4\)\) must hold a positive whole number"),
        ({"shape": (4, 4), "spacing": float("inf")}, r"`spacing` \(=inf\) must be positive and finite"),
        ({"shape": (4, 4), "spacing": None}, r"`spacing` \(=None\) must be one value, or 2"),
        ({"shape": (4, 4), "spacing": -1.0}, r"`spacing` \(=-1.0\) must be positive"),
        ({"shape": (4, 4), "spacing": (1.0,)}, r"`spacing` .* must be one value, or 2"),
        ({"shape": (4, 4), "boundary": "wall"}, r"`boundary` on axis 0 .* must be of the kinds periodic"),
        ({"shape": (4, 4), "boundary": ("slip",)}, r"`boundary` .* must be one kind, or 2 kinds"),
        ({"shape": (4,), "boundary": (("periodic", "slip"),)}, r"periodic on both sides or on neither"),
    ],
)
def test_bad_grids(options, message):
    with pytest.raises(ValueError, match=message):
        Grid(**options)
