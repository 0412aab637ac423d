import hashlib
import os
import signal

import pytest

from cliffsteer.datasets.files import AtomicFile, remove_temporaries, sha256, uninterrupted, write_bytes


def test_a_file_appears_only_when_published(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    file = AtomicFile(path)
    file.write(b"hello world")
    file.seek(0)
    file.write(b"HELLO")
    digest = file.seal()
    assert path.read_bytes() == b"old"
    file.publish()
    file.abort()
    assert path.read_bytes() == b"HELLO world"
    assert digest == sha256(path) == hashlib.sha256(b"HELLO world").hexdigest()
    assert os.listdir(tmp_path) == ["a.bin"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_abort_leaves_nothing(tmp_path):
    file = AtomicFile(tmp_path / "a.bin")
    file.write(b"x" * 100)
    file.abort()
    assert os.listdir(tmp_path) == []


def test_a_failed_write_is_told_once_and_later(tmp_path):
    file = AtomicFile(tmp_path / "a.bin")
    os.close(file._fd)
    file._fd = os.open(file.temporary, os.O_RDONLY)  # every write now fails in the system
    assert file.write(b"data") == 4
    assert file.tell() == 4
    with pytest.raises(OSError, match=r"Cannot write .*a\.bin \(Bad file descriptor\)"):
        file.check()
    with pytest.raises(OSError, match="Cannot write"):
        file.seal()
    file.abort()
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(OSError, match=r"Cannot write .*nowhere/a \(No such file or directory\)"):
        write_bytes(tmp_path / "nowhere" / "a", b"")


def test_only_leftovers_are_removed(tmp_path):
    (tmp_path / "keep.tmp").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"")
    AtomicFile(tmp_path / "shard_00000.hdf5").write(b"killed here")
    assert len(os.listdir(tmp_path)) == 3
    remove_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "keep.tmp"]


def test_an_interrupt_waits_for_the_end_of_the_body():
    reached = []

    def interrupted():
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
