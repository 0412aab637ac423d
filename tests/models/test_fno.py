import sys

import pytest
import torch

from cliffsteer import CliffordAlgebra, Field, FieldSpec, Grid, Surrogate
from cliffsteer.models import create
from cliffsteer.normalization import Normalization

PLANE = CliffordAlgebra((1, 1))
SMALL = {"hidden_channels": 4, "blocks": (2,), "modes": 2}


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "neuralop", None)
    monkeypatch.setitem(sys.modules, "neuralop.models", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs the neuraloperator library: pip install 'cliffsteer\[neur"):
        create("fno", PLANE, 1, 1)


class TestWithTheLibrary:
    @pytest.fixture(autouse=True)
    def _library(self):
        pytest.importorskip("neuralop")

    def test_computes_what_the_library_does(self):
        from neuralop.models import FNO

        network = create("fno", PLANE, 2, 1, **SMALL)
        original = FNO((4, 4), 8, 4, 4, n_layers=2)
        weights = network.operator.state_dict()
        for name, value in original.named_parameters():
            key = name.replace("weight.tensor", "weight.parts")
            value.data = torch.view_as_complex(weights[key]) if value.is_complex() else weights[key]
        x = torch.randn(2, 2, 4, 8, 10)
        assert torch.allclose(network(x).flatten(1, 2), original(x.flatten(1, 2)), atol=1e-6)

    def test_weights_are_real_in_files_and_changes_of_precision(self, tmp_path):
        spec, grid = FieldSpec((1, 1), [Field("density", 0), Field("velocity", 1)]), Grid((8, 8))
        model = {"name": "fno", **SMALL, "position": False, "norm": "layer"}
        surrogate = Surrogate.create(model, spec, grid, 1.0, 2, 1, Normalization.identity(spec))
        surrogate.save_pretrained(tmp_path / "fno")
        loaded = Surrogate.from_pretrained(tmp_path / "fno")
        frames = torch.randn(1, 2, 4, 8, 8)
        assert torch.equal(loaded.step(frames), surrogate.eval().step(frames))
        double = surrogate.double().step(frames.double())
        assert torch.allclose(double, loaded.step(frames).double(), atol=1e-5)
        assert not any(p.is_complex() for p in surrogate.parameters())

    def test_without_positions_shifts_commute_with_it(self):
        x = torch.randn(1, 1, 4, 8, 8)
        for position in (False, True):
            network = create("fno", PLANE, 1, 1, **SMALL, position=position)
            assert torch.allclose(network(x.roll(3, 3)), network(x).roll(3, 3), atol=1e-6) != position

    def test_padding_adds_cells_and_takes_them_away(self):
        network = create("fno", PLANE, 1, 1, **SMALL, domain_padding=0.25)
        assert network(torch.randn(1, 1, 4, 8, 8)).shape == (1, 1, 4, 8, 8)

    def test_grids_need_enough_cells(self):
        with pytest.raises(RuntimeError, match=r"the grid \(3, 8\), but 2 modes need at least 4 cells on each axis"):
            create("fno", PLANE, 1, 1, **SMALL)(torch.zeros(1, 1, 4, 3, 8))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"modes": 0}, r"`modes` \(=0\) must be at least 1"),
            ({"norm": "batch"}, r"`norm` \(='batch'\) must be 'layer' or 'none'"),
            ({"domain_padding": 1}, r"`domain_padding` \(=1\) must be a share"),
        ],
        ids=str,
    )
    def test_errors(self, options, message):
        with pytest.raises(ValueError, match=message):
            create("fno", PLANE, 1, 1, **options)
