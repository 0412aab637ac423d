import json

import pytest
import torch

from cliffsteer import Field, FieldSpec
from cliffsteer.normalization import Normalization
from cliffsteer.symmetry import lattice_symmetries

SIGNATURES = [(1,), (1, 1), (1, 1, 1), (1, -1, -1), (-1, 1), (1, -1, -1, -1)]


def of_every_grade(signature):
    grades = range(len(signature) + 1)
    dynamic = [Field(f"{name}{k}", k) for name in ("a", "b") for k in grades]
    spec = FieldSpec(signature, dynamic + [Field(f"p{k}", k, role="parameter") for k in grades])
    scales = {f.name: 0.3 + 0.7 * i for i, f in enumerate(spec.dynamic)}
    deltas = {name: scale / 7 for name, scale in scales.items()}
    parameters = {f.name: 1.7 + i for i, f in enumerate(spec.parameters)}
    return Normalization(spec, scales, {"a0": 2.5, "b0": -1.0}, deltas, parameters)


@pytest.fixture
def normalization():
    return of_every_grade((1, 1))


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_commutes_with_every_lattice_symmetry_exactly(signature, dtype, generator):
    normalization = of_every_grade(signature)
    spec = normalization.spec
    frames = torch.randn(2, 2, spec.n_blades, *[3] * spec.algebra.dim, generator=generator, dtype=dtype)
    packed = torch.randn(2, spec.n_parameter_blades, generator=generator, dtype=dtype)
    names = ("normalize", "denormalize", "normalize_delta", "denormalize_delta")
    symmetries = list(lattice_symmetries(spec.algebra))
    for g in symmetries[:: max(1, len(symmetries) // 16)]:
        for name in names:
            function = getattr(normalization, name)
            assert torch.equal(function(g.act(spec.algebra, frames)), g.act(spec.algebra, function(frames)))
        turned = g.turn(spec.algebra, normalization.normalize_parameters(packed))
        assert torch.equal(normalization.normalize_parameters(g.turn(spec.algebra, packed)), turned)


def test_only_scalars_may_have_a_mean(normalization):
    assert normalization.means == {"a0": 2.5, "b0": -1.0}
    spec, scales = normalization.spec, normalization.scales
    for name in ("a1", "a2"):
        with pytest.raises(ValueError, match=rf"`means` gives '{name}', of grade \d, a mean"):
            Normalization(spec, scales, {name: 0.1})


def test_values(normalization):
    spec = normalization.spec
    frames = torch.full((1, 1, spec.n_blades, 2, 2), 3.0)
    out = spec.unpack(normalization.normalize(frames))
    assert float(out["a0"].mean()) == pytest.approx((3 - 2.5) / 0.3)
    assert torch.allclose(out["b1"], torch.tensor(3 / 3.1))
    assert torch.allclose(spec.unpack(normalization.normalize_delta(frames))["a0"], torch.tensor(7 * 3 / 0.3))
    packed = torch.ones(1, spec.n_parameter_blades)
    assert torch.allclose(
        spec.unpack_parameters(normalization.normalize_parameters(packed))["p1"], torch.tensor(1 / 2.7)
    )


def test_inverses_and_gradients(normalization, generator):
    frames = torch.randn(2, 3, 8, 4, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    for there, back in (("normalize", "denormalize"), ("normalize_delta", "denormalize_delta")):
        torch.testing.assert_close(getattr(normalization, back)(getattr(normalization, there)(frames)), frames)
    (gradient,) = torch.autograd.grad(normalization.normalize(frames).sum(), frames)
    expected = (1 / normalization.scale.double()).view(8, 1, 1).expand_as(frames)
    torch.testing.assert_close(gradient, expected)


def test_blades_without_fields_pass_unchanged():
    normalization = Normalization(FieldSpec((1, 1), [Field("v", 1)]), {"v": 5.0})
    frames = torch.ones(1, 1, 4, 2, 2)
    assert normalization.normalize(frames)[0, 0, :, 0, 0].tolist() == pytest.approx([1, 0.2, 0.2, 1])


def test_identity_changes_nothing(normalization, generator):
    identity = Normalization.identity(normalization.spec)
    frames = torch.randn(2, 2, 8, 3, 3, generator=generator)
    assert torch.equal(identity.normalize(frames), frames)
    assert torch.equal(identity.normalize_delta(frames), frames)
    packed = torch.randn(2, 4, generator=generator)
    assert torch.equal(identity.normalize_parameters(packed), packed)


def test_round_trips(normalization, generator):
    frames = torch.randn(1, 1, 8, 2, 2, generator=generator)
    expected = normalization.normalize(frames)
    data = json.loads(json.dumps(normalization.to_dict()))
    again = Normalization.from_dict(normalization.spec, data)
    assert again.to_dict() == normalization.to_dict()
    assert torch.equal(again.normalize(frames), expected)
    loaded = Normalization.identity(normalization.spec)
    loaded.load_state_dict(normalization.state_dict())
    assert torch.equal(loaded.normalize(frames), expected)
    assert loaded.to_dict() == normalization.to_dict()


def test_it_follows_the_precision_of_the_frames(normalization):
    frames = torch.ones(1, 1, 8, 2, 2)
    assert normalization.normalize(frames.double()).dtype == torch.float64
    moved = normalization.to(torch.float64)
    assert moved.scale.dtype == torch.float64
    assert moved.normalize(frames).dtype == torch.float32
    assert moved.normalize_parameters(torch.ones(1, 4)).dtype == torch.float32


@pytest.mark.parametrize(
    ("scales", "means", "message"),
    [
        ({"s": 1.0}, {}, "`scales` lacks the field 'v'"),
        ({"s": 1.0, "v": 0.0}, {}, r"`scale` of field 'v' \(=0.0\) must be positive and finite"),
        ({"s": float("nan"), "v": 1.0}, {}, r"`scale` of field 's' \(=nan\)"),
        ({"s": 1.0, "v": 1.0, "w": 1.0}, {}, "There is no field 'w' to normalise; there are 's', 'v'"),
        ({"s": 1.0, "v": 1.0}, {"s": float("inf")}, r"`mean` of field 's' \(=inf\) must be finite"),
        ({"s": 1.0, "v": 1.0}, {"w": 1.0}, "No field 'w'"),
    ],
)
def test_wrong_numbers_are_one_sentence(scales, means, message):
    with pytest.raises(ValueError, match=message):
        Normalization(FieldSpec((1, 1), [Field("s", 0), Field("v", 1)]), scales, means)


def test_wrong_shapes_are_one_sentence(normalization):
    with pytest.raises(ValueError, match=r"`frames` has shape \(1, 1, 4, 2, 2\), expected"):
        normalization.normalize(torch.zeros(1, 1, 4, 2, 2))
    with pytest.raises(ValueError, match=r"`packed` has shape \(1, 8\), expected \(batch, 4\)"):
        normalization.normalize_parameters(torch.zeros(1, 8))
