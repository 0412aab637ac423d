import pytest
import torch

from cliffsteer import CliffordAlgebra, Field, FieldSpec, Grid, Surrogate
from cliffsteer.models import create
from cliffsteer.normalization import Normalization
from cliffsteer.symmetry import lattice_symmetries
from cliffsteer.testing import assert_equivariant

PLANE = CliffordAlgebra((1, 1))
SMALL = {"hidden_channels": 1, "blocks": (2,), "modes": 1}
SIGNATURES = [(1,), (1, 1), (1, -1, -1), (1, 1, 1)]


def made(algebra, **options):
    """A network whose biases and norms do something, in float64."""
    network = create("gfno", algebra, 2, 1, **SMALL | options).double()
    for weight in network.parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight)
    return network


@pytest.mark.parametrize("options", [{}, {"norm": "layer", "domain_padding": 0.25}], ids=str)
@pytest.mark.parametrize("signature", SIGNATURES, ids=str)
def test_is_equivariant_on_even_and_odd_grids(signature, options):
    algebra = CliffordAlgebra(signature)
    network = made(algebra, **options)
    for size in (4, 5):
        x = torch.randn(1, 2, algebra.n_blades, *[size] * algebra.dim, dtype=torch.float64)
        assert_equivariant(network, x, algebra, tolerance=1e-12)


def test_rotations_alone_leave_reflections_free():
    network, x = made(PLANE, group="SO"), torch.randn(1, 2, 4, 5, 5, dtype=torch.float64)
    rotations = [g for g in lattice_symmetries(PLANE) if g.matrix.det() > 0]
    assert_equivariant(network, x, PLANE, group=rotations, tolerance=1e-12)
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(network, x, PLANE, tolerance=1e-3)


def test_shifts_commute_with_it_unless_padded():
    x = torch.randn(1, 2, 4, 8, 6, dtype=torch.float64)
    for share in (0, 0.25):
        network = made(PLANE, domain_padding=share)
        assert torch.allclose(network(x.roll(3, 3)), network(x).roll(3, 3), atol=1e-12) != bool(share)


def test_weights_are_real_in_files_and_changes_of_precision(tmp_path):
    spec, grid = FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1)]), Grid((8, 8))
    surrogate = Surrogate.create({"name": "gfno", **SMALL}, spec, grid, 1.0, 2, 1, Normalization.identity(spec))
    surrogate.save_pretrained(tmp_path / "gfno")
    loaded = Surrogate.from_pretrained(tmp_path / "gfno")
    frames = torch.randn(1, 2, 4, 8, 8)
    assert torch.equal(loaded.step(frames), surrogate.eval().step(frames))
    double = surrogate.double().step(frames.double())
    assert torch.allclose(double, loaded.step(frames).double(), atol=1e-5)
    assert not any(value.is_complex() for value in surrogate.state_dict().values())


def test_exports_for_any_batch_and_computes_in_full_precision_under_autocast():
    network, x = create("gfno", PLANE, 2, 1, **SMALL).eval(), torch.randn(2, 2, 4, 6, 6)
    program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for batch in (x, torch.randn(3, 2, 4, 6, 6)):
        assert torch.allclose(program(batch), network(batch), atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(network(x).float(), network.float()(x).float(), atol=1e-6)
        assert network.blocks[0].spectral(torch.randn(1, 8, 4, 4)).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "C4"}, r"`group` \(='C4'\) must be one of"),
        ({"norm": "batch"}, r"`norm` \(='batch'\) must be 'layer' or 'none'"),
        ({"modes": 0}, r"`modes` \(=0\) must be at least 1"),
        ({"domain_padding": 1}, r"`domain_padding` \(=1\) must be a share from 0 to below 1"),
        ({"hidden_channels": 0}, r"`hidden_channels` \(=0\)"),
    ],
    ids=str,
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        create("gfno", PLANE, 1, 1, **options)
