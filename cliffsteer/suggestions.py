"""Sentences about names that are not there: what was probably meant, and what there is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any


def suggestion(word: str, choices: Iterable[str]) -> str:
    """The end of a sentence, ``: did you mean 'x'?`` with the closest choice; empty when none is close."""
    return "".join(f": did you mean {match!r}?" for match in get_close_matches(str(word), list(choices), 1))


def question(word: str, choices: Iterable[str]) -> str:
    """A sentence of its own, `` Did you mean 'x'?`` with the closest choice; empty when none is close."""
    return "".join(f" Did you mean {match!r}?" for match in get_close_matches(str(word), list(choices), 1))


def check_options(what: str, function: Callable[..., Any], n_fixed: int, options: Iterable[str]) -> None:
    """Raise a ValueError for an option that a function does not have.

    Args:
        what: what the function makes, e.g. "kernel 'complete'".
        function: a function or class.
        n_fixed: how many of its first parameters are no options.
        options: names of the options given.
    """
    known = list(inspect.signature(function).parameters)[n_fixed:]
    for option in options:
        if option not in known:
            raise ValueError(f"{what} has no option {option!r}{suggestion(option, known)}; it has {', '.join(known)}.")
