"""Any exception becomes one line for people, and an exit code."""

import pytest

from cliffsteer.commands.errors import describe


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (OSError(28, "No space left on device", "a/b"), "No space left on the disk while writing a/b", 2),
        (OSError(28, "No space left on device", "a/.b.7.tmp"), "No space left on the disk while writing a:", 2),
        (OSError(28, "No space left on device", "x", None, "a/b"), "No space left on the disk while writing a/b:", 2),
        (FileNotFoundError(2, "No such file or directory", "a/b"), "a/b does not exist.", 2),
        (PermissionError(13, "Permission denied", "a/b"), "a/b: Permission denied.", 2),
        (RuntimeError("`x` has one axis too many."), "`x` has one axis too many.", 2),
        (MemoryError(), "Not enough memory", 2),
        (ValueError("first\n  second"), "first second", 2),
        (KeyError("x"), "KeyError: 'x' (this should not happen", 1),
        (KeyboardInterrupt(), "Interrupted.", 130),
    ],
)
def test_errors_in_words(error, line, code):
    text, number = describe(error)
    assert text.startswith(line)
    assert "\n" not in text
    assert number == code
