"""Errors for people: any exception becomes one line and an exit code."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from cliffsteer.suggestions import suggestion

USAGE, BUG, INTERRUPTED = 2, 1, 130
_DISK_FULL = ("no space left", "file too large", "os error 28", "os error 27", "pytorchstreamwriter failed writing")
_MEMORY = ("out of memory", "can't allocate memory")


class UsageError(ValueError):
    """A command line that cannot be carried out; its text is the sentence shown."""


def describe(error: BaseException, verb: str | None = None) -> tuple[str, int]:
    """The line that is shown for an error, and the exit code.

    Args:
        error: what was raised.
        verb: the verb that was running, for suggestions of keys.

    Returns:
        The line, and 2 for what the user can mend, 130 for an interrupt, 1 for what must be a fault of cliffsteer.
    """
    chain = list(_chain(error))
    texts = [f"{type(e).__name__} {e}".lower() for e in chain]
    if any(isinstance(e, KeyboardInterrupt) for e in chain):
        return "Interrupted. What is written stays; the same command goes on from there.", INTERRUPTED
    if isinstance(error, ValueError | OSError) and not getattr(error, "errno", None) and not _is_hydra(error):
        return _one_line(error), USAGE  # a sentence of ours
    if isinstance(error, RuntimeError) and str(error).startswith("`"):
        return _one_line(error), USAGE  # ours too: torch._check raises RuntimeErrors
    if any(part in text for text in texts for part in _DISK_FULL):
        names = (e.filename2 or e.filename for e in chain if isinstance(e, OSError))
        where = Path(next((str(name) for name in names if name), ""))
        if where.name.startswith(".") and where.suffix == ".tmp":
            where = where.parent  # the file of that name is gone already
        place = f" while writing {where}" if where.name else ""
        return (
            f"No space left on the disk{place}: free some or write elsewhere (`out=...`); what is written stays.",
            USAGE,
        )
    if isinstance(error, MemoryError) or any(part in text for text in texts for part in _MEMORY):
        return "Not enough memory: make the batch (`data.batch_size`, `batch`), the network or the grid smaller.", USAGE
    if _is_hydra(error):
        return _describe_hydra(error, verb), USAGE
    if isinstance(error, FileNotFoundError) and error.filename and error.strerror:
        return f"{error.filename} does not exist.", USAGE
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}.", USAGE
    name = type(error).__name__
    return f"{name}: {_one_line(error)} (this should not happen; CLIFFSTEER_DEBUG=1 shows where it did)", BUG


# ----------------------------------------------------------------------------------------------------- private


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those it was raised from or during."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _one_line(error: BaseException | str) -> str:
    return " ".join(str(error).split()) or "no further message"


def _is_hydra(error: BaseException) -> bool:
    """Whether the configuration was at fault: an error of Hydra, OmegaConf or their YAML parser."""
    return any(kind.__module__.partition(".")[0] in ("hydra", "omegaconf", "yaml") for kind in type(error).__mro__)


def _describe_hydra(error: BaseException, verb: str | None) -> str:
    text = str(error)
    if match := re.search(r"Could not find '(\w[\w/]*)/([^'/]+)'", text):
        group, option = match.groups()
        options = _options(text)
        return f"`{group}` (={option!r}) is unknown{suggestion(option, options)}; available: {', '.join(options)}."
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1]
        known = _keys(verb)
        if key in known:  # of the default option of its group, but not of the chosen one, such as a plugin's
            return f"`{key}` is not in the config of the chosen option: give it as `+{key}=...` if there is such a key."
        known = [other for other in known if not key.startswith(f"{other}.")]
        leaves = {other.rpartition(".")[2]: other for other in known}
        hint = suggestion(key, known)
        if not hint and (close := difflib.get_close_matches(key, leaves, n=1)):
            hint = f": did you mean {leaves[close[0]]!r}?"
        return f"`{key}` is not a key of `cliffsteer {verb}`{hint or ';'} `cliffsteer {verb} --cfg job` lists the keys."
    if match := re.search(r"Missing mandatory value: (\S+)", text):
        return f"`{match[1]}` is missing: give it as `cliffsteer {verb} {match[1]}=...`."
    if match := re.search(r"Error merging override (\S+)", text):
        cause = _one_line(str(error.__cause__ or text.partition("\n")[2]).partition("\n")[0]).rstrip(".")
        key, _, value = match[1].partition("=")
        if "is not a ListConfig" in cause:
            return f"`{key}` (={value}) must be a list: write `{key}=[{value}]`."
        return f"`{match[1]}`: {cause[:1].lower()}{cause[1:]}."
    if hasattr(error, "override"):
        return f"`{error.override}` is no override: write key=value, and quote values that hold spaces, commas or `=`."
    if match := re.search(r"Cannot find primary config '([^']*)'", text):
        return f"There is no config {match[1]!r}: `--config-name` takes a file of `--config-dir`, without `.yaml`."
    return _one_line(text)


def _options(text: str) -> list[str]:
    """The options that Hydra lists in its message, one a line, up to the first line that is not indented."""
    listed = text.partition("Available options in")[2].splitlines()[1:]
    return [line.strip() for line in itertools.takewhile(lambda line: line.startswith("\t"), listed)]


def _keys(verb: str | None) -> list[str]:
    """Every key of a verb's config, groups included."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    from cliffsteer.commands.schema import register

    def walk(node: object, prefix: str) -> Iterator[str]:
        for key, value in node.items() if isinstance(node, dict) else ():
            yield prefix + str(key)
            yield from walk(value, f"{prefix}{key}.")

    if verb is None:
        return []
    register()
    with initialize_config_module("cliffsteer.conf", version_base="1.3"):
        config = OmegaConf.to_container(compose(verb))
    return [*walk(config, ""), "experiment"]
