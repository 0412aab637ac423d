"""Tables of the docs are those of the result files."""

import pages
import pytest
from paper_table import our_table
from tables import Ratio, flat, read_csv, write_csv

from cliffsteer.intervals import Estimate, estimate


def test_the_docs_are_in_step_with_the_result_files():
    pages.main(["--check"])


def test_a_page_that_differs_is_told_and_written(tmp_path, monkeypatch):
    results, docs = tmp_path / "results", tmp_path / "docs"
    results.mkdir()
    docs.mkdir()
    (results / "speed.csv").write_text(
        "case,model,width,parameters,gflops,samples_per_s,speed_vs_resnet,speed_vs_fno,peak_mb\n"
        "2D,resnet,4,1000,0.5,20.0,1.0,nan,3.0\n"
    )
    page = docs / "page.md"
    page.write_text("Before.\n\n<!-- table: speed.csv -->\nold\n<!-- end of table -->\n\nAfter.\n")
    monkeypatch.setattr(pages, "RESULTS", results)
    monkeypatch.setattr(pages, "DOCS", docs)
    with pytest.raises(SystemExit, match="differ from the result files"):
        pages.main(["--check"])
    pages.main([])
    text = page.read_text()
    assert text.startswith("Before.\n\n<!-- table: speed.csv -->\n\n| task | network |")
    assert "| 2D | resnet | 4 | 1,000 | 0.5 | 20 | 1.00 |" in text
    assert text.endswith("<!-- end of table -->\n\nAfter.\n")
    assert "old" not in text
    pages.main(["--check"])
    for broken, message in (
        ("<!-- table: no.csv -->\n<!-- end of table -->", r"There is no .*no\.csv"),
        ("<!-- table: speed.csv -->\n\nProse.\n", r"the table of speed\.csv does not end"),
        (f"<!-- table: speed.csv -->\n\nProse.\n\n{text}", r"the table of speed\.csv does not end"),
        (text.replace("table: speed", "table speed"), "begin or end none: <!-- table speed"),
        (text.replace("end of table", "end of the table"), "does not end"),
        (f"{text}<!-- table : speed.csv -->\n", "begin or end none"),
    ):
        page.write_text(broken)
        with pytest.raises(SystemExit, match=message):
            pages.main(["--check"])
        with pytest.raises(SystemExit, match=message):
            pages.main([])
        assert page.read_text() == broken
    page.write_text(text)
    for damage in ("2D,resnet,four,1000,0.5,20.0", "2D,resnet"):
        (results / "speed.csv").write_text(
            f"case,model,width,parameters,gflops,samples_per_s,speed_vs_resnet,speed_vs_fno\n{damage}\n"
        )
        with pytest.raises(SystemExit, match=r"speed\.csv is damaged"):
            pages.main([])


def test_numbers_come_back_from_their_file(tmp_path):
    rows = [
        {"network": "a", "trajectories": 8, "mse": estimate([1.0, 3.0]), "data": Ratio(4.0, ">"), "boosted": None},
        {"network": "b", "trajectories": None, "mse": Estimate(1 / 3, None, None, 1), "data": None, "boosted": None},
    ]
    write_csv(rows, tmp_path / "table.csv")
    first, second = read_csv(tmp_path / "table.csv")
    assert list(first) == ["network", "trajectories", "mse", "mse_error", "data", "data_bound", "boosted"]
    assert {key: value for key, value in first.items() if value is not None} == {
        key: value for key, value in flat(rows[0]).items() if value is not None
    }
    assert (second["mse"], second["mse_error"], second["data_bound"]) == (0.333333, None, None)


def test_a_table_is_the_same_from_rows_and_from_their_file(tmp_path):
    row = {"network": "a", "trajectories": 8, "seeds": 2, "mse": estimate([1.0, 3.0]), "over_baseline": 1.0}
    row |= {"published": None, "data": Ratio(4.0), "rollout": estimate([0.5]), "rotated": None, "boosted": None}
    row |= {"weights": 1000, "seconds": estimate([3.0, 4.0]), "milliseconds": estimate([2.0, 2.5])}
    write_csv([row], tmp_path / "table.csv")
    assert our_table([row]) == our_table(read_csv(tmp_path / "table.csv"))
    assert "| a | 8 | 2 | 2 ± 1 | 1 | 4 | 0.5 | 1,000 | 3.5 ± 0.5 | 2.25 ± 0.2 |" in our_table([row])
