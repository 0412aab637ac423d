"""The README's Python example runs as it stands and says what it promises."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs(capsys):
    code = re.search(r"<!-- tested: README example -->\n```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    exec(compile(code.group(1), str(README), "exec"), {})
    shape, channels, error = capsys.readouterr().out.splitlines()
    assert shape == "torch.Size([4, 3, 4, 32, 32])"
    assert channels == "torch.Size([4, 8, 4, 32, 32])"
    assert float(error.rsplit(" ", 1)[1]) < 1e-12
    assert len(code.group(1).strip().splitlines()) <= 18


def test_every_link_to_a_file_of_the_project_leads_somewhere():
    for page in [README, *README.parent.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
