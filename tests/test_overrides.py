"""What is written for Hydra's command line is read back by Hydra as it was."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from cliffsteer.overrides import override, written

WORDS = ("runs/smoke", "./a-b_1.2+c", "../x", "/x/y", "cuda:0", "trues")
OTHERS = (
    "",
    "lr=0.1",
    "x,y",
    "(a)",
    "[1]",
    "{a:b}",
    "007",
    "1e5",
    "null",
    "NaN",
    "a b",
    " a",
    "~/a",
    "-a",
    "ä",
    "it's",
)
QUOTES = ('say "a"', "back\\slash", "end\\", 'q\\"x', "a\nb")


@pytest.mark.parametrize("text", [*WORDS, *OTHERS, *QUOTES])
def test_text_comes_back(text):
    for line in (override("k", text), f"k={written(text)}"):
        (parsed,) = OverridesParser.create().parse_overrides([line])
        value = parsed.value()
        assert (isinstance(value, str), value) == (True, text)
    assert (override("k", text) == f"k={text}") == (text in WORDS)


def test_values_come_back():
    value = {"a": ["b=c", "d", 1.5, 2, None, True], "e": {}}
    assert override("k", value) == 'k={a:["b=c",d,1.5,2,null,true],e:{}}'
    assert written(value) == '{a:["b=c","d",1.5,2,null,true],e:{}}'
    for text in (written(value), written(value, words=True)):
        assert OverridesParser.create().parse_overrides([f"k={text}"])[0].value() == value
