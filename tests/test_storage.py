import os
import stat

import pytest

from cliffsteer.storage import json_ready, replacing_file, replacing_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_half(context, error, name):
    with context as temporary:
        (temporary / name).write_text("half")
        raise error


def test_a_file_is_replaced_when_complete(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for text in ("one", "two"):
        with replacing_file(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() != text
        assert path.read_text() == text
    assert names(path.parent) == ["file.txt"]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_half(replacing_file(path), KeyboardInterrupt, "")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_folder_is_replaced_when_complete_and_keeps_other_entries(tmp_path):
    path = tmp_path / "folder"
    with replacing_folder(path) as temporary:
        (temporary / "a").write_text("old")
        (temporary / "sub").mkdir()
        (temporary / "sub" / "b").write_text("kept")
    with replacing_folder(path) as temporary:
        (temporary / "a").write_text("new")
        assert (path / "a").read_text() == "old"
    assert (path / "a").read_text() == "new"
    assert (path / "sub" / "b").read_text() == "kept"
    assert names(tmp_path) == ["folder"]


def test_a_failure_leaves_the_old_folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "a").write_text("old")
    with pytest.raises(RuntimeError):
        write_half(replacing_folder(path), RuntimeError, "a")
    assert (path / "a").read_text() == "old"
    assert names(tmp_path) == ["folder"]


def test_a_new_folder_is_readable_by_others_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        with replacing_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755


def test_what_json_cannot_hold_becomes_none():
    value = {2: (1.5, float("nan"), float("inf")), "text": "a", "none": None, "whole": [3, True]}
    assert json_ready(value) == {"2": [1.5, None, None], "text": "a", "none": None, "whole": [3, True]}
