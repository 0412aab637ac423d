import pytest

from cliffsteer import Field, FieldSpec
from cliffsteer.datasets.layout import frame_places, parameter_places


def where(spec):
    return {f"{p.group}/{p.name}": p.labels for p in frame_places(spec)}


def test_fields_of_the_plane():
    spec = FieldSpec((1, 1), [Field("s", 0), Field("v", 1), Field("w", 2)])
    assert where(spec) == {"t0_fields/s": ("1",), "t1_fields/v": ("e1", "e2"), "t0_fields/w": ("e12",)}


def test_a_bivector_in_space_is_stored_as_its_axial_vector():
    spec = FieldSpec((1, 1, 1), [Field("v", 1), Field("b", 2), Field("p", 3)])
    assert where(spec) == {
        "t1_fields/v": ("e1", "e2", "e3"),
        "t1_fields/b": ("e23", "-e13", "e12"),
        "t0_fields/p": ("e123",),
    }
    place = frame_places(spec)[1]
    assert [spec.algebra.blade_names[i] for i in place.blades] == ["e23", "e13", "e12"]
    assert place.signs == (1, -1, 1)


def test_fields_on_a_line_and_in_spacetime():
    assert where(FieldSpec((1,), [Field("s", 0), Field("v", 1)])) == {"t0_fields/s": ("1",), "t1_fields/v": ("e1",)}
    spec = FieldSpec((1, -1, -1, -1), [Field("f", 2), Field("j", 3)])
    assert where(spec) == {f"t0_fields/f_{b}": (b,) for b in ("e12", "e13", "e14", "e23", "e24", "e34")} | {
        "t1_fields/j": ("e234", "-e134", "e124", "-e123")
    }


def test_parameters_are_scalars_by_component():
    fields = [Field("s", 0), Field("g", 1, role="parameter"), Field("f", 2, role="parameter")]
    assert [p.name for p in parameter_places(FieldSpec((1, 1), fields))] == ["g_e1", "g_e2", "f"]


def test_names_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="'a/b' cannot name an HDF5 dataset"):
        frame_places(FieldSpec((1,), [Field("a/b", 0)]))
    fields = [Field("f", 2), Field("f_e12", 0)]
    with pytest.raises(ValueError, match="Fields 'f' and 'f_e12' would both be stored as 'f_e12'"):
        frame_places(FieldSpec((1, 1, 1, 1), fields))
