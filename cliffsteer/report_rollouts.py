"""Rollouts of a run, as its report shows them: errors, spectra, and where and why guards tripped."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SHOWN = 40
"""Events of guards listed for one rollout; the files beside it have all of them."""


def read_rollouts(run: str | Path) -> list[dict[str, Any]]:
    """What `cliffsteer rollout` left in the folder of a run.

    Args:
        run: folder of the run; every folder in it with a rollout.json is read.

    Returns:
        For each rollout "title", "facts" (label -> text), "figures" (caption -> address of an image that is in the page
        itself), and "events", a table with "header", "rows" and "text", or None where no guards were.

    Raises:
        ValueError: a file that is damaged.
    """
    return [_read(path.parent) for path in sorted(Path(run).glob("*/rollout.json"))]


def _read(folder: Path) -> dict[str, Any]:
    told = _load(folder / "rollout.json")
    try:
        unit = told["time_unit"]
        errors = {name: curves[told["coupling"]][-1] for name, curves in told["errors"].items()}
        facts = {
            "Rollout": f"{told['steps']} frames ({told['coupling']}), {told['steps'] * told['dt']:g} {unit}, of"
            f" trajectory {told['trajectory']} of split {told['split']}",
            "Grid": f"{' × '.join(map(str, told['cells']))} cells",
            "Compared": _compared(told),
            "NRMSE at the end": ", ".join(f"{name} {_number(value)}" for name, value in errors.items()),
            "Energy over the solver's, last quarter": "; ".join(
                f"{name}: " + ", ".join(f"{band} {_number(share)}" for band, share in shares.items())
                for name, shares in told["bands"].items()
            ),
        }
        pictures = {"Spectra of the last quarter and energy over time, beside the solver's": "spectra.png"}
        pictures |= {f"Error of {name}": f"errors_{name}.png" for name in told["errors"]}
        events_file = folder / "interventions.json"
        guards = _load(events_file) if told["coupling"] == "guarded" and events_file.is_file() else None
        if guards is not None:
            counts = guards["counts"]
            facts["Guards"] = ", ".join(
                f"{counts.get(key, 0)} {text}"
                for key, text in (
                    ("surrogate", "frames of the surrogate"),
                    ("rejected", "rejected and done again by the solver"),
                    ("handed back", "handed back to the solver"),
                )
            )
            pictures["When and where guards tripped"] = "interventions.png"
        figures = {text: _image(folder / file) for text, file in pictures.items() if (folder / file).is_file()}
        events = None if guards is None else _events(guards["events"], told)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{folder} holds no rollout that this cliffsteer reads ({type(error).__name__} {error}): `cliffsteer"
            " rollout` makes it again."
        ) from error
    return {"title": folder.name, "facts": facts, "figures": figures, "events": events}


def _compared(told: Mapping[str, Any]) -> str:
    """Over how many frames, and with what."""
    end = told["start"] + told.get("history", 1) + told["compared"]
    text = f"over {told['compared']} frames"
    return f"{text}; beyond the {told['stored']} stored ones with the solver" if end > told["stored"] else text


def _events(events: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> dict[str, Any]:
    """A table of when, why and where the solver took over."""
    rows = [
        [
            str(event["step"]),
            f"{event['step'] * told['dt']:g} {told['time_unit']}",
            event["guard"],
            _number(event["score"]),
            _number(event["threshold"]),
            ", ".join(map(str, event["cell"])),
            _number(event["error"]),
        ]
        for event in events[:SHOWN]
    ]
    rest = len(events) - len(rows)
    text = (
        "Each line is a guard that rejected a step, which the solver then did: its score, what was allowed, the cell in"
        " which the rejected frames were farthest from the solver's, and by how much they were off in all (NRMSE)."
    )
    if not events:
        text = "No guard was tripped."
    elif rest:
        text += f" {rest} more are in interventions.json."
    header = ["Step", "Time", "Guard", "Score", "Allowed", "Cell", "Off by"]
    return {"header": header, "rows": rows, "text": text}


def _load(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): `cliffsteer rollout` makes it again.") from error


def _image(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _number(value: float | None) -> str:
    return "not finite" if value is None or not math.isfinite(value) else f"{value:.3g}"
