"""The tables of the docs, from the result files beside this script.

    python benchmarks/pages.py [--check]

In a page of `docs`, what stands between these two comments is the table of a file of `benchmarks/results`:

    <!-- table: turbulence.csv -->
    <!-- end of table -->

It is written anew; with ``--check`` nothing is written, and the command fails where a page and its files differ. Files
of studies are made by ``study_table.py``, those of the published experiments are the ``paper.csv`` of ``paper.py``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paper_table
import study_table
from tables import grid, read_csv, text

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = re.compile(r"<!-- table: (\S+) -->\n"), "<!-- end of table -->"


def throughput(rows: Sequence[dict[str, Any]]) -> str:
    """The table of ``throughput.py``."""
    head = ["task", "network", "width", "weights", "GFLOP a sample", "samples/s", "over ResNet", "over FNO", "peak, MB"]
    lines = [
        [
            row["case"],
            row["model"],
            str(row["width"]),
            f"{row['parameters']:,}",
            text(row["gflops"], ".2g"),
            text(row["samples_per_s"]),
            text(row["speed_vs_resnet"], ".2f"),
            text(row["speed_vs_fno"], ".2f"),
            text(row["peak_mb"], ".0f"),
        ]
        for row in rows
    ]
    return grid(head, lines)


KINDS = {"nrmse_1": study_table.markdown, "mse": paper_table.our_table, "samples_per_s": throughput}
"""What makes a table of a file, by a column that only such files have."""


def table(name: str) -> str:
    """The Markdown table of a file of results.

    Raises:
        SystemExit: there is no such file, it is damaged, or of no known kind.
    """
    path = RESULTS / name
    if not path.is_file():
        sys.exit(f"There is no {path}: make it, or take its table out of the docs.")
    try:
        rows = read_csv(path)
        for column, make in KINDS.items():
            if rows and column in rows[0]:
                return make(rows)
    except (KeyError, TypeError, ValueError) as error:
        sys.exit(f"{path} is damaged ({type(error).__name__}: {error}): make it again.")
    sys.exit(f"{path} has none of the columns {', '.join(KINDS)}: it is no file of results.")


def written(path: Path) -> str:
    """A page with its tables as the files have them.

    Raises:
        SystemExit: a table that does not end, or comments that are like those of tables and are none.
    """
    parts = BEGIN.split(path.read_text(encoding="utf-8"))
    text = parts[0]
    for name, rest in zip(parts[1::2], parts[2::2], strict=True):
        _, end, after = rest.partition(END)
        if not end:
            sys.exit(f"{path}: the table of {name} does not end: put {END!r} after it.")
        text += f"<!-- table: {name} -->\n\n{table(name)}\n\n{END}{after}"
    comments = [line for line in text.splitlines() if line.startswith("<!--") and "table" in line]
    if len(comments) != len(parts) - 1:
        sys.exit(f"{path}: some of the comments about tables begin or end none: {'; '.join(comments)}.")
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    for path in sorted(DOCS.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = written(path)
        if before == after:
            continue
        if options.check:
            sys.exit(f"{path} has tables that differ from the result files: `python benchmarks/pages.py`.")
        path.write_text(after, encoding="utf-8")
        print(f"{path}: written")


if __name__ == "__main__":
    main()
