"""Values as the command line takes them, in the grammar of Hydra's overrides."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

_WORD = re.compile(r"(?!(null|true|false|nan|inf)$)(\.{0,2}/|[a-z_])[\w./:+-]*", re.ASCII | re.IGNORECASE)


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
