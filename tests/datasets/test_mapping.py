from pathlib import Path

import numpy as np
import pytest
import torch

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.datasets.foreign import ForeignFile, Variable
from cliffsteer.datasets.mapping import FieldMapping


def file_of(shape, components, constants=None):
    """A file in memory with random variables of so many components."""
    arrays = {
        name: np.random.default_rng(i).normal(size=(2, 3, size, *shape))
        for i, (name, size) in enumerate(components.items())
    }
    variables = {name: Variable(a.shape[2], lambda t, i, j, a=a: a[t, i:j]) for name, a in arrays.items()}
    return ForeignFile(Path("some.h5"), "some", 2, 3, shape, variables, constants or {}), arrays


def test_every_grade_of_every_dimension_goes_to_its_blades():
    for dim in (1, 2, 3, 4):
        shape = (2,) * dim
        names = ["scalar", "vector", "bivector", "trivector"][:dim]
        spec = FieldMapping(dict.fromkeys(names, "scalar") | {n: n for n in names}, [1] * dim).spec
        sizes = {name: spec.slots[name].size for name in names}
        file, arrays = file_of(shape, sizes | {"pseudoscalar": 1})
        mapping = FieldMapping({n: n for n in [*names, "pseudoscalar"]}, [1] * dim)
        mapping.check(file)
        parts = mapping.spec.unpack(mapping.read(file, Grid(shape), 1, 0, 3)[None])
        for name in [*names, "pseudoscalar"]:
            expected = arrays[name][1]
            if dim > 2 and mapping.spec[name].grade == dim - 1:  # an axial vector: component i lacks axis i
                expected = expected[:, ::-1] * np.array([(-1) ** i for i in range(dim)])[::-1].reshape(-1, *[1] * dim)
            np.testing.assert_array_equal(parts[name][0], expected)


def test_components_and_constants_come_from_anywhere():
    constants = {"g": np.array([[0.0, 1.0], [2.0, 3.0]]), "nu": np.array([[0.1], [0.2]])}
    file, arrays = file_of((4, 5), {"a": 1, "b": 3}, constants)
    mapping = FieldMapping(
        {
            "u": {"grade": "vector", "from": ["b[2]", "a"], "unit": "m/s"},
            "w": {"grade": "pseudoscalar", "from": "b[0]"},
            "gravity": {"grade": "vector", "from": "g", "role": "parameter"},
            "viscosity": {"grade": 0, "from": ["nu"], "role": "parameter"},
            "tilt": {"grade": 1, "from": [-1, "g[1]"], "role": "parameter"},
        },
        [1, 1],
    )
    mapping.check(file)
    frames = mapping.read(file, Grid((4, 5)), 0, 1, 3)
    assert frames.shape == (2, 4, 4, 5)
    np.testing.assert_array_equal(frames[:, 1], arrays["b"][0, 1:3, 2])
    np.testing.assert_array_equal(frames[:, 2], arrays["a"][0, 1:3, 0])
    np.testing.assert_array_equal(frames[:, 3], arrays["b"][0, 1:3, 0])
    assert mapping.spec["u"].unit == "m/s"
    assert mapping.parameters(file, range(1, 2)) == {
        "gravity": [[2.0, 3.0]],
        "viscosity": [[0.2]],
        "tilt": [[-1.0, 3.0]],
    }


@pytest.mark.parametrize("signature", [(1, 1), (1, 1, 1), (1, -1, -1), (1, 1, 1, 1)])
def test_writing_undoes_reading(signature):
    dim = len(signature)
    fields = [Field(f"f{k}", k) for k in range(dim + 1)] + [Field(f"p{k}", k, "1", "parameter") for k in range(dim + 1)]
    spec = FieldSpec(signature, fields)
    mapping = FieldMapping({f.name: {"grade": f.grade, "role": f.role} for f in fields}, signature)
    frames, packed = torch.randn(3, spec.n_blades, *(2,) * dim), torch.randn(2, spec.n_parameter_blades)
    arrays, constants = mapping.components(frames, spec), mapping.constants(packed, spec)
    variables = {name: Variable(a.shape[1], lambda t, i, j, a=a: a[i:j].numpy()) for name, a in arrays.items()}
    numbers = {name: values.numpy() for name, values in constants.items()}
    file = ForeignFile(Path("x.h5"), "x", 2, 3, (2,) * dim, variables, numbers)
    mapping.check(file)
    assert torch.equal(mapping.read(file, Grid((2,) * dim), 0, 0, 3).float(), frames)
    assert torch.equal(spec.pack_parameters(mapping.parameters(file, range(2)), 2), packed)


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ({}, r"`mapping` is empty: say what the variables are, as in mapping={velocity:vector"),
        ({"a": "vectr"}, r"`grade` of 'a' \(='vectr'\) is none .* Did you mean 'vector'\?"),
        (
            {"a": "trivector"},
            r"`grade` of 'a' \(='trivector'\) is none of the 2 axes: choose from scalar, vector, bivector",
        ),
        ({"a": 3}, r"`grade` of 'a' \(=3\) is none"),
        ({"a": {"grade": 0, "form": "b"}}, r"has the key 'form', which means nothing\. Did you mean 'from'\?"),
        ({"a": {"grade": 0, "from": None}}, r"`from` of 'a' \(=None\) must be the name of a variable, a number, or"),
        ({"a": {"grade": 1, "from": ["b", None]}}, r"`from` of 'a' \(=\['b', None\]\) must be the name"),
        ({"a": {"grade": 0, "from": {"b": 1}}}, r"`from` of 'a' \(=\{'b': 1\}\) must be the name"),
        ({"a": {"grade": 0, "from": []}}, r"`from` of 'a' \(=\[\]\) must be the name"),
        ({"a": {"grade": 0, "from": True, "role": "parameter"}}, r"`from` of 'a' \(=True\) must be the name"),
        ({"a": ["scalar"]}, r"`grade` of 'a' \(=\['scalar'\]\) is none of the 2 axes"),
        ({"a": None}, r"`grade` of 'a' \(=None\) is none of the 2 axes"),
        ({"a": {"grade": 0, "role": "constant"}}, r"`role` of field 'a' \(='constant'\) must be"),
        (
            {"a": {"grade": 0, "at": "face"}},
            r"`at` of 'a' \(='face'\) must be 'faces' or 'edges'\. Did you mean 'faces'",
        ),
    ],
)
def test_declarations_that_mean_nothing(declaration, message):
    with pytest.raises(ValueError, match=message):
        FieldMapping(declaration, [1, 1])


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        (
            {"velocty": "vector"},
            r"the variable 'velocty', which some\.h5 has not\. Did you mean 'velocity'\? It has velo",
        ),
        (
            {"p": "vector"},
            r"makes 'p' a field of grade 1, which has 2 component\(s\) on 2 axes, from p with 1; some\.h5",
        ),
        ({"velocity": "scalar"}, r"grade 0, which has 1 component\(s\) on 2 axes, from velocity with 2"),
        ({"x": {"grade": 1, "from": ["p", "velocity"]}}, r"from p with 1 \+ velocity with 2"),
        (
            {"x": {"grade": 0, "from": "velocity[2]"}},
            r"takes 'velocity\[2\]', but 'velocity' of some\.h5 has 2 component",
        ),
        ({"x": {"grade": 1, "from": [0, "p"]}}, r"takes 'x' from a number \(0\.0\): only parameters can be"),
        (
            {"p": 0, "nu": {"grade": 0, "role": "parameter", "from": "p"}},
            r"takes 'nu' from the constant 'p', which some",
        ),
    ],
)
def test_mappings_that_do_not_fit_the_file(declaration, message):
    file, _ = file_of((4, 5), {"velocity": 2, "p": 1}, {"nu": np.ones((2, 1))})
    with pytest.raises(ValueError, match=message):
        FieldMapping(declaration, [1, 1]).check(file)


def test_a_signature_of_another_dimension():
    file, _ = file_of((4, 5), {"p": 1})
    with pytest.raises(ValueError, match=r"`signature` has 3 signs, but some\.h5 has 2 axes: \(4, 5\)"):
        FieldMapping({"p": "scalar"}, [1, 1, 1]).check(file)


def test_fields_that_a_dataset_lacks_cannot_be_written():
    spec = FieldSpec((1, 1), [Field("velocity", 1)])
    with pytest.raises(
        ValueError, match=r"field 'velocty' of grade 1, which the dataset has not\. Did you mean 'velocity"
    ):
        FieldMapping({"velocty": "vector"}, [1, 1]).check_fields(spec)
    with pytest.raises(ValueError, match=r"field 'velocity' of grade 0, which the dataset has not.*velocity \(grade 1"):
        FieldMapping({"velocity": "scalar"}, [1, 1]).check_fields(spec)
