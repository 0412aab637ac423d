import pytest
import torch

from cliffsteer import CliffordAlgebra
from cliffsteer.nn import CompleteKernel


@pytest.mark.parametrize("group", ["O", "SO"])
@pytest.mark.parametrize("signature", [(-1,), (1, 1), (1, -1, -1), (1, -1, -1, -1)], ids=str)
def test_kernels_are_assembled_from_the_maps_of_their_basis(signature, group):
    kernel = CompleteKernel(CliffordAlgebra(signature), 2, 3, 5 if len(signature) < 4 else 3, group).double()
    basis, nb = kernel.basis, kernel.algebra.n_blades
    radial = kernel.radial()[:, basis.orbit]
    expected = torch.einsum("bpoi,bjkp->ojikp", radial, basis.maps)
    assert torch.allclose(kernel().view(3, nb, 2, nb, -1), expected, rtol=1e-13, atol=1e-13)
