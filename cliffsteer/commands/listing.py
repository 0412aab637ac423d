"""What can be configured: the groups of `cliffsteer.conf`, their options, and what the keys of a verb mean."""

from __future__ import annotations

import dataclasses
import inspect
from importlib import resources


def options(group: str) -> dict[str, str]:
    """Options of a config group: name -> the first line of comment in its file; those of a folder as folder/name."""
    found = {}
    folder = resources.files("cliffsteer.conf").joinpath(group)
    for file in sorted(folder.iterdir(), key=lambda file: file.name) if folder.is_dir() else ():
        if file.name.endswith(".yaml"):
            found[file.name.removesuffix(".yaml")] = _summary(file.read_text(encoding="utf-8"))
        elif file.is_dir() and file.name[0] not in "_.":
            found |= {f"{file.name}/{name}": text for name, text in options(f"{group}/{file.name}").items()}
    return found


def groups() -> list[str]:
    """Names of the config groups."""
    return sorted(f.name for f in resources.files("cliffsteer.conf").iterdir() if f.is_dir() and f.name[0] not in "_.")


def _summary(text: str) -> str:
    comments = (line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#"))
    return next((line for line in comments if not line.startswith("@")), "")


def key_help(schema: type, prefix: str = "") -> str:
    """What the keys of a config dataclass mean, from the "Args:" of its docstring and of the dataclasses in it."""
    texts: dict[str, str] = {}
    for kind in reversed(schema.__mro__[:-1]):
        texts |= _documented(inspect.getdoc(kind) or "")
    lines, summary = [], (inspect.getdoc(schema) or "").partition("\n")[0]
    for field in dataclasses.fields(schema):
        default = field.default_factory() if callable(field.default_factory) else field.default
        if dataclasses.is_dataclass(default):
            lines.append(key_help(type(default), f"{prefix}{field.name}."))
        else:
            lines.append(f"  {prefix}{field.name}: {texts.get(field.name, summary)}")
    return "\n".join(lines)


def _documented(doc: str) -> dict[str, str]:
    """Name -> text of each argument; "a, b: text" documents both."""
    block = inspect.cleandoc(doc.partition("Args:\n")[2].partition("\n\n")[0].replace("\n        ", " "))
    entries = (line.partition(": ") for line in block.splitlines())
    return {name.strip(): text for names, _, text in entries for name in names.split(",")}
