"""Registry of solvers: by name, built in or from other packages through the entry-point group "cliffsteer.solvers".

Built-in solvers are imported when first asked for, so importing ``cliffsteer.solvers`` stays light.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cliffsteer.solvers.base import Solver
from cliffsteer.suggestions import question

GROUP = "cliffsteer.solvers"
_BUILT_IN = {
    "maxwell2d": "cliffsteer.solvers.maxwell_spacetime",
    "maxwell_charges": "cliffsteer.solvers.maxwell_charges",
    "maxwell_spacetime": "cliffsteer.solvers.maxwell_spacetime",
    "maxwell3d": "cliffsteer.solvers.maxwell3d",
    "maxwell3d_pdearena": "cliffsteer.solvers.maxwell3d_pdearena",
    "maxwell3d_yee": "cliffsteer.solvers.maxwell3d_yee",
    "smoke": "cliffsteer.solvers.smoke",
    "smoke_phiflow": "cliffsteer.solvers.smoke_phiflow",
    "smoke_scene": "cliffsteer.solvers.smoke_scene",
    "turbulence": "cliffsteer.solvers.turbulence",
    "shallow_water": "cliffsteer.solvers.shallow_water",
    "klein_gordon": "cliffsteer.solvers.klein_gordon",
    "klein_gordon_spacetime": "cliffsteer.solvers.klein_gordon_spacetime",
    "wave": "cliffsteer.solvers.klein_gordon",
}
_REGISTERED: dict[str, type[Solver]] = {}


def register(name: str) -> Callable[[type[Solver]], type[Solver]]:
    """Class decorator that registers a solver by name for this process.

    A package makes its solver known without being imported first by an entry point of the same name in the group
    "cliffsteer.solvers", with the class as its value.

    Raises:
        ValueError: the class is no Solver, or the name belongs to another one.

    Example:
        >>> @register("decay")  # doctest: +SKIP
        ... class Decay(Solver):
        ...     ...
    """

    def decorate(cls: type[Solver]) -> type[Solver]:
        if not (inspect.isclass(cls) and issubclass(cls, Solver)):
            raise ValueError(f"`{getattr(cls, '__name__', cls)}` must be a subclass of cliffsteer.solvers.Solver.")
        taken = _REGISTERED.get(name)
        origin = f"{cls.__module__}.{cls.__qualname__}"
        foreign = _BUILT_IN.get(name, cls.__module__) != cls.__module__
        if foreign or (taken is not None and f"{taken.__module__}.{taken.__qualname__}" != origin):
            raise ValueError(f"`name` (={name!r}) is taken by another solver: choose a name of its own for {origin}.")
        cls.name = name
        _REGISTERED[name] = cls
        return cls

    return decorate


def available() -> dict[str, str]:
    """Names of all solvers, each with one line on what it is; plugins that fail to import say so in theirs."""
    lines = {}
    for name in _names():
        try:
            lines[name] = _first_line(_find(name))
        except ValueError as error:
            lines[name] = str(error)
    return lines


def create(name: str, **options: Any) -> Solver:
    """Make a solver.

    Args:
        name: one of ``available()``.
        options: its constructor's keyword arguments.

    Raises:
        ValueError: no such solver, an option it does not have, or a value it refuses.

    Example:
        >>> create("smoke", resolution=32).grid.shape
        (32, 32)
    """
    if name not in _names():
        raise ValueError(f"`solver` (={name!r}) is unknown: choose from {_listed(_names())}.{question(name, _names())}")
    cls = _find(name)
    known = solver_options(cls)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(
            f"`{unknown[0]}` is no option of solver {name!r}: its options are {', '.join(known) or 'none'}."
            f"{question(unknown[0], known)}"
        )
    missing = [name for name, p in known.items() if p.default is p.empty and name not in options]
    if missing:
        raise ValueError(f"`{missing[0]}` must be given for solver {name!r}: it has no default.")
    return cls(**options)


def _names() -> list[str]:
    return sorted({*_BUILT_IN, *_REGISTERED, *_plugins()})


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _find(name: str) -> type[Solver]:
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name in _BUILT_IN:
        importlib.import_module(_BUILT_IN[name])
        return _REGISTERED[name]
    point = _plugins()[name]
    try:
        cls = point.load()
    except Exception as error:  # whatever a third party's import may raise
        raise ValueError(f"`solver` (={name!r}) cannot be loaded from {point.value}: {error!r}.") from error
    return register(name)(cls)


def solver_options(cls: type[Solver]) -> dict[str, inspect.Parameter]:
    """Keyword arguments of the constructor; ``**options`` in it stands for those of the next class it inherits from."""
    known: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
            known |= {p.name: p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)} | known
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return known


def _first_line(cls: type[Solver]) -> str:
    return (inspect.getdoc(cls) or cls.__name__).splitlines()[0]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
