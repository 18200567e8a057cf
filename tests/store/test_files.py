"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import EXIT_UNMEASURABLE, EXIT_USAGE, DamagedStore, StoreError
from evalkit.store.files import (
    is_safe_id,
    locked,
    make_whole_folder,
    read_json,
    verify_sha256,
    write_json,
    write_whole,
)


def write(path: Path, data: bytes = b"new", *, replace: bool = False) -> str:
    with write_whole(path, replace=replace) as file:
        file.write(data)
    return file.sha256


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (errno.ENOSPC, EXIT_UNMEASURABLE),
        (errno.EDQUOT, EXIT_UNMEASURABLE),
        (errno.EIO, EXIT_UNMEASURABLE),
        (errno.EACCES, EXIT_USAGE),
    ],
)
def test_a_disk_that_is_full_or_fails_is_no_fault_of_usage(
    tmp_path: Path, code: int, status: int
) -> None:
    with pytest.raises(StoreError) as refused, write_whole(tmp_path / "file"):
        raise OSError(code, os.strerror(code))

    assert refused.value.exit_code == status


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_the_advice_is_of_use_for_a_report_as_for_a_store(tmp_path: Path, code: int) -> None:
    with pytest.raises(StoreError) as refused, write_whole(tmp_path / "report.html"):
        raise OSError(code, os.strerror(code))

    assert "place" in str(refused.value)
    assert "--store" not in str(refused.value)


def test_a_file_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"

    with write_whole(path) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b" and half")

    assert path.read_bytes() == b"half and half"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with write_whole(tmp_path / "file") as file:
            file.write(b"half")
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        fail()

    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    with pytest.raises(StoreError, match="exists and is never overwritten"):
        write(tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == b"old"


def test_only_what_is_meant_to_change_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "file", b"old")

    write(tmp_path / "file", b"new", replace=True)

    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_leftover_that_shares_its_bytes_with_a_finished_file_harms_it_not(tmp_path: Path) -> None:
    write(tmp_path / "file", b"finished")
    os.link(tmp_path / "file", tmp_path / ".file.tmp")

    with pytest.raises(StoreError, match="never overwritten"):
        write(tmp_path / "file", b"other")

    assert (tmp_path / "file").read_bytes() == b"finished"
    assert not (tmp_path / ".file.tmp").exists()


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links_a_file_still_appears_whole_and_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*names: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)

    write(tmp_path / "file", b"first")
    with pytest.raises(StoreError, match="never overwritten"):
        write(tmp_path / "file", b"second")

    assert (tmp_path / "file").read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_the_system_refuses_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(b"a file in the way")

    with pytest.raises(StoreError, match=r"folder/file: File exists"):
        write(tmp_path / "folder" / "file")


def test_an_ended_file_drops_what_still_comes(tmp_path: Path) -> None:
    with write_whole(tmp_path / "file") as file:
        file.write(b"all")

    file.write(b"more")

    assert (tmp_path / "file").read_bytes() == b"all"


def test_the_checksum_is_that_of_the_bytes_on_disk(tmp_path: Path) -> None:
    sha256 = write(tmp_path / "file", b"data")

    verify_sha256(tmp_path / "file", sha256=sha256)
    with pytest.raises(DamagedStore, match=r"file is damaged"):
        verify_sha256(tmp_path / "file", sha256="0" * 64)
    with pytest.raises(DamagedStore, match=r"gone is missing"):
        verify_sha256(tmp_path / "gone", sha256=sha256)


def test_a_file_changed_after_it_was_checked_is_checked_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sha256 = write(path, b"data")
    verify_sha256(path, sha256=sha256)

    path.write_bytes(b"dat!")
    os.utime(path, ns=(1, 1))

    with pytest.raises(DamagedStore, match="damaged"):
        verify_sha256(path, sha256=sha256)


def test_an_empty_json_object_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", {})

    assert read_json(tmp_path / "file.json") == {}


@pytest.mark.parametrize("text", [b"{", b"[1]", b"\xff", b"", b"[" * 100_000])
def test_json_that_is_no_object_is_damage(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "file.json").write_bytes(text)

    with pytest.raises(DamagedStore, match=r"file\.json is damaged"):
        read_json(tmp_path / "file.json")


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {"a": [1, None, "é\u2028"], "b": {"c": 0.1}}

    write_json(tmp_path / "file.json", value)

    assert read_json(tmp_path / "file.json") == value


def test_every_flipped_bit_of_a_json_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"tolerance": 0.05, "gate": True, "branch": "main"})
    data = path.read_bytes()

    for at in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
            with pytest.raises(DamagedStore, match=r"file\.json is damaged"):
                read_json(path)


def test_a_json_file_changed_by_hand_is_not_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"tolerance": 0.05})
    path.write_text(path.read_text().replace("0.05", "0.5"))

    with pytest.raises(DamagedStore, match="not what its SHA-256 says"):
        read_json(path)


@pytest.mark.parametrize("text", ['{\n "a": 1\n}\n', "{}", '{"a": {"sha256": "0"}}'])
def test_a_json_file_from_before_there_were_seals_is_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)

    assert read_json(path) == json.loads(text)


def test_a_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    lock = tmp_path / "lock"

    with (
        locked(lock, holder="it is busy"),
        pytest.raises(StoreError, match="it is busy"),
        locked(lock, holder="it is busy"),
    ):
        pass
    with locked(lock, holder="it is busy"):
        pass


def test_a_folder_is_not_there_before_its_files_are(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"

    make_whole_folder(folder, {".gitignore": b"*\n"})

    assert (folder / ".gitignore").read_bytes() == b"*\n"
    assert [p.name for p in folder.parent.iterdir()] == ["folder"]
    assert folder.stat().st_mode & 0o077 == 0


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    make_whole_folder(tmp_path, {".gitignore": b"*\n"})

    assert list(tmp_path.iterdir()) == []


def test_a_folder_made_by_somebody_quicker_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    rename = os.rename

    def too_late(old: Path, new: Path) -> None:
        folder.mkdir()
        (folder / "theirs").write_bytes(b"theirs")
        rename(old, new)

    monkeypatch.setattr(os, "rename", too_late)

    make_whole_folder(folder, {".gitignore": b"*\n"})

    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "theirs"]


@pytest.mark.parametrize("name", ["01a1fd18", "run-1", "a.b_c", "x" * 128])
def test_plain_names_are_safe(name: str) -> None:
    assert is_safe_id(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".git", "a/b", "a b", "é", "a\n", "x" * 129, "a*"])
def test_other_names_are_not(name: str) -> None:
    assert not is_safe_id(name)


def test_what_is_no_regular_file_is_written_to_not_replaced(tmp_path: Path) -> None:
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    link.symlink_to(target)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    for path in (pipe, link):
        with write_whole(path, replace=True) as file:
            file.write(b"said")

    assert os.read(reader, 10) == b"said"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert link.is_symlink()
    assert target.read_bytes() == b"said"
    os.close(reader)
