"""Values as the command line takes them, in the grammar of Hydra's overrides."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

_WORD = re.compile(r"(?!(null|true|false|nan|inf)$)(\.{0,2}/|[a-z_])[\w./:+-]*", re.ASCII | re.IGNORECASE)


_OPEN = re.compile(r"[\w.]+=\s*\{|(loss\.weights|model\.like|(model\.options\.)?kernel_options|splits)\.")


def opened(word: str) -> str:
    """An override that may add keys to the mappings that are open; Hydra refuses those that their default lacks.

    Example:
        >>> opened("loss.weights.density=100"), opened("loss.unroll=3")
        ('++loss.weights.density=100', 'loss.unroll=3')
    """
    return f"++{word}" if _OPEN.match(word) else word


def as_typed(word: str) -> str:
    """What `opened` was given."""
    return word[2:] if word.startswith("++") and _OPEN.match(word, 2) else word


def override(key: str, value: Any) -> str:
    """``key=value``, where text that cannot be taken for anything else stays as it is.

    Example:
        >>> override("out", "runs/smoke"), override("out", "runs/smoke-lr=0.1"), override("runs", ["a", "b"])
        ('out=runs/smoke', 'out="runs/smoke-lr=0.1"', 'runs=[a,b]')
    """
    return f"{key}={written(value, words=True)}"


def written(value: Any, words: bool = False) -> str:
    """A number, text, path, None, list or mapping of them; text in quotes, but for plain ``words``."""
    match value:
        case Mapping():
            return "{" + ",".join(f"{key}:{written(item, words)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(written(item, words) for item in value) + "]"
        case str() | os.PathLike():
            text = os.fspath(value)
            return text if words and _WORD.fullmatch(text) else _quoted(text)
    return json.dumps(value)


def _quoted(text: str) -> str:
    """Text in quotes; of the backslashes only those before a quote are doubled."""
    return '"{}"'.format(re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + (found[2] and '\\"'), text))
