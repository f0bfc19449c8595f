import json
import os
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tieline.api import DataDirInUseError, FatalError
from tieline_connectors.command.audit import file as audit_file
from tieline_connectors.command.audit.chain import ChainHead, head_of, next_line, verify
from tieline_connectors.command.audit.file import AuditFile
from tieline_connectors.command.audit.verification import verify_file, verify_files


def chain(number):
    lines, head = [], ChainHead()
    for n in range(number):
        line, head = next_line(head, {"n": n, "text": "é\n"}, at=1000 + n)
        lines.append(line)
    return lines, head


def broken_at(lines, head=None):
    broken = verify(lines, head)
    return broken and broken.line


def test_a_complete_log_is_verified():
    lines, head = chain(5)
    assert verify(lines, head) is None
    assert verify(lines) is None
    assert verify([], ChainHead()) is None
    assert verify(lines, ChainHead()) is None
    assert head_of(lines[-1]) == head
    assert ChainHead.parse(head.to_line()) == head
    assert json.loads(lines[2]) == {
        "seq": 3,
        "at": 1002,
        "prev": head_of(lines[1]).hash,
        "hash": head_of(lines[2]).hash,
        "event": {"n": 2, "text": "é\n"},
    }


def test_a_head_from_earlier_is_enough():
    lines, _ = chain(5)
    assert verify(lines, head_of(lines[2])) is None


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize(
    "change", ["removed", "doubled", "swapped", "edited", "reformatted", "no json", "torn"]
)
def test_the_first_broken_line_is_reported(place, change):
    lines, head = chain(6)
    line = lines[place]
    if change == "removed":
        del lines[place]
    elif change == "doubled":
        lines.insert(place, line)
        place += 1
    elif change == "swapped":
        lines[place], lines[place + 1] = lines[place + 1], lines[place]
    elif change == "edited":
        lines[place] = line.replace(b'"n":%d' % place, b'"n":7')
    elif change == "reformatted":
        lines[place] = line.replace(b'"at":', b'"at": ')
    elif change == "no json":
        lines[place] = b"[" * 100_000 + b"\n"
    else:
        lines[place] = line[:-5]
    assert broken_at(lines, head) == place + 1


def test_a_rewritten_line_with_its_own_hash_breaks_the_next_line():
    lines, head = chain(4)
    lines[1], _ = next_line(head_of(lines[0]), {"n": "forged"}, at=1001)
    assert broken_at(lines, head) == 3


def test_a_truncated_end_is_found_by_the_head():
    lines, head = chain(4)
    assert verify(lines[:3], head) == (4, "the end is missing: the head names line 4, the log has 3")
    assert verify(lines[:3]) is None
    assert broken_at([], head) == 1


def test_a_completely_rewritten_history_is_found_by_the_head():
    _, head = chain(4)
    lines, other = [], ChainHead()
    for n in range(6):
        line, other = next_line(other, {"forged": n}, at=0)
        lines.append(line)
    assert broken_at(lines, head) == 4


@pytest.mark.parametrize("raw", [b"", b"7", b"{}", b'{"seq":"1","hash":"x"}', b'{"seq":true,"hash":"x"}'])
def test_an_invalid_head_is_rejected(raw):
    with pytest.raises(ValueError):  # noqa: PT011 - json's sentences too
        ChainHead.parse(raw)


@pytest.fixture
def opened(tmp_path):
    files = []

    def of(name="audit.log", **options):
        files.append(AuditFile(tmp_path / name, **options))
        return files[-1]

    yield of
    for file in files:
        file.close()


def test_a_log_continues_where_it_ended(opened, tmp_path):
    first = opened()
    first.append(1, {"a": 1}, {"a": 2})
    first.close()
    second = opened()
    assert second.repaired == ""
    assert second.append(2, {"a": 3}).seq == 3
    assert verify_file(tmp_path / "audit.log") is None
    assert len((tmp_path / "audit.log").read_bytes().splitlines()) == 3


def test_only_its_owner_reads_it_and_only_one_process_writes_it(opened, tmp_path):
    old = os.umask(0)
    try:
        opened()
    finally:
        os.umask(old)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "audit.log": 0o600,
        "audit.log.head": 0o600,
    }
    (tmp_path / "link.log").symlink_to("audit.log")
    for name in ("audit.log", "link.log", f"../{tmp_path.name}/audit.log"):
        with pytest.raises(DataDirInUseError, match=rf"running process {os.getpid()}; .* its own audit.file"):
            AuditFile(tmp_path / name)


def test_a_log_that_others_could_read_is_made_private(tmp_path):
    (tmp_path / "audit.log").touch(0o644)
    AuditFile(tmp_path / "audit.log").close()
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600


def test_what_is_not_a_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "audit.log")
    with pytest.raises(FatalError, match="is not a regular file"):
        AuditFile(tmp_path / "audit.log")


@pytest.mark.parametrize("kept", [1, 10, -1])
def test_a_last_line_that_a_crash_tore_is_removed_and_reported(opened, tmp_path, kept):
    path = tmp_path / "audit.log"
    log = opened()
    log.append(1, {"a": 1})
    whole = path.read_bytes()
    log.close()
    line, _ = next_line(log.head, {"a": 2}, 2)
    path.write_bytes(whole + line[:kept])
    assert verify_file(path) is None if kept > 0 else True
    again = opened()
    assert "torn by a crash and cut off" in again.repaired
    assert path.read_bytes() == whole
    again.append(2, {"a": 2})
    assert path.read_bytes() == whole + line


@pytest.mark.parametrize("content", [b"no line end", b'{"version":1,"rules":[]}', b"a line\nand more", b'{"'])
def test_a_file_that_is_not_an_audit_log_is_rejected_and_left_unchanged(tmp_path, content):
    path = tmp_path / "policy.json"
    path.write_bytes(content)
    path.chmod(0o644)
    if content == b'{"':  # perhaps the beginning of our first line
        AuditFile(path).close()
        assert path.read_bytes() == b""
        return
    with pytest.raises(FatalError, match=r"is not an audit log; set audit\.file to another path"):
        AuditFile(path)
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o644


def test_zeros_that_a_power_loss_left_at_the_end_are_cut_off(tmp_path):
    path = tmp_path / "audit.log"
    lines, head = chain(2)
    for remainder in (b"\0" * 100, lines[1][:30] + b"\0" * 100):
        path.write_bytes(b"".join(lines) + remainder)
        log = AuditFile(path)
        assert log.head == head
        log.close()
        assert path.read_bytes() == b"".join(lines)


def test_a_head_older_than_the_log_is_accepted(opened, tmp_path):
    log = opened()
    log.append(1, {"a": 1})
    head = (tmp_path / "audit.log.head").read_bytes()
    log.append(1, {"a": 2})
    log.close()
    (tmp_path / "audit.log.head").write_bytes(head)
    assert opened().head.seq == 2


@pytest.mark.parametrize("damage", ["cut off", "edited", "other", "head damaged"])
def test_a_changed_log_is_rejected_and_left_unchanged(opened, tmp_path, damage):
    path = tmp_path / "audit.log"
    log = opened()
    log.append(1, {"a": 1}, {"a": 2})
    log.close()
    lines = path.read_bytes().splitlines(keepends=True)
    if damage == "cut off":
        path.write_bytes(lines[0])
    elif damage == "edited":
        path.write_bytes(lines[0] + lines[1].replace(b'"a":2', b'"a":3'))
    elif damage == "other":
        path.write_bytes(lines[0] + next_line(head_of(lines[0]), {"forged": 1}, 1)[0])
    else:
        (tmp_path / "audit.log.head").write_bytes(b"x")
    before = path.read_bytes()
    with pytest.raises(FatalError, match="tieline command audit verify"):
        AuditFile(path)
    assert path.read_bytes() == before
    assert verify_file(path) is not None


def test_a_log_whose_middle_was_edited_is_found_by_verify(opened, tmp_path):
    path = tmp_path / "audit.log"
    opened().append(1, *({"a": n} for n in range(5)))
    path.write_bytes(path.read_bytes().replace(b'"a":2', b'"a":9'))
    broken = verify_file(path)
    assert broken is not None
    assert broken.line == 3


def test_a_write_that_fails_leaves_nothing_behind(opened, tmp_path):
    path = tmp_path / "audit.log"
    log = opened()
    log.append(1, {"a": 1})
    before = path.read_bytes()
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, old_limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            log.append(2, {"a": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert verify_file(path) is None
    log.append(2, {"a": 2})
    assert verify_file(path) is None
    assert path.read_bytes().startswith(before)
    assert len(path.read_bytes().splitlines()) == 2


def test_a_head_that_is_empty_or_cannot_be_written_does_not_stop_the_log(opened, tmp_path):
    (tmp_path / "audit.log.head.new").mkdir()
    log = opened()
    log.append(1, {"a": 1})
    assert not (tmp_path / "audit.log.head").exists()
    log.close()
    (tmp_path / "audit.log.head").touch()
    assert opened().append(2, {"a": 2}).seq == 2
    assert verify_file(tmp_path / "audit.log") is None


def test_a_log_is_verified_while_it_is_written(opened, tmp_path):
    log = opened()
    for number in range(20):
        log.append(number, {"n": number})
        assert verify_file(tmp_path / "audit.log") is None


def test_no_file_stays_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    log = AuditFile(tmp_path / "a")
    log.close()
    log.close()
    (tmp_path / "a").write_bytes(b"x\n")
    with pytest.raises(FatalError):
        AuditFile(tmp_path / "a")
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_head_follows_the_log_within_a_second_and_at_its_end(opened, tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(audit_file, "time", SimpleNamespace(monotonic=lambda: now))

    def kept():
        return ChainHead.parse((tmp_path / "audit.log.head").read_bytes()).seq

    log = opened()
    for number in range(3):
        log.append(number, {"n": number})
    assert kept() == 0
    now = 101.0
    log.append(3, {"n": 3})
    assert kept() == 4
    log.append(4, {"n": 4})
    log.update_head()
    assert kept() == 4
    now = 102.0
    log.update_head()
    assert kept() == 5
    log.append(5, {"n": 5})
    log.close()
    assert kept() == 6


def test_after_a_crash_the_head_is_older_and_the_log_continues(opened, tmp_path):
    program = "import os, sys; from tieline_connectors.command.audit.file import *; from pathlib import Path;"
    program += "AuditFile(Path(sys.argv[1])).append(1, {'a': 1}); os._exit(9)"
    dead = subprocess.run([sys.executable, "-c", program, str(tmp_path / "audit.log")], check=False)
    assert dead.returncode == 9
    assert ChainHead.parse((tmp_path / "audit.log.head").read_bytes()).seq == 0
    assert verify_file(tmp_path / "audit.log") is None
    assert opened().head.seq == 1
    assert ChainHead.parse((tmp_path / "audit.log.head").read_bytes()).seq == 1


def events(path):
    return [json.loads(line)["event"] for line in path.read_bytes().splitlines()]


def _copy(path):
    path.with_name("audit.log.1").write_bytes(path.read_bytes())
    path.write_bytes(b"")


def _rename(path):
    path.rename(path.with_name("audit.log.1"))


def _rename_and_make(path):
    _rename(path)
    path.touch()


LOST = {
    "moved": _rename,
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "replaced by an empty file": _rename_and_make,
    "copied and emptied": _copy,
}


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("noticed", ["by a line", "by a look"])
def test_a_log_that_is_lost_while_it_is_written_continues_at_its_path_and_says_so(
    opened, tmp_path, caplog, monkeypatch, how, noticed
):
    path, counted = tmp_path / "audit.log", []
    log = opened(count=lambda name, number: counted.append((name, number)))
    before = log.append(1, {"a": 1}, {"a": 2})
    LOST[how](path)
    if noticed == "by a look":
        monkeypatch.setattr(audit_file, "_CHECK_EVERY", 0.0)
        log.update_head()
        assert [event["state"] for event in events(path)] == ["CONTINUED"]
    log.append(3, {"a": 3})
    log.append(4, {"a": 4})
    first, *rest = events(path)
    assert (first["state"], first["lines_before"], rest) == ("CONTINUED", 2, [{"a": 3}, {"a": 4}])
    assert (json.loads(path.read_bytes().splitlines()[0])["prev"], log.head.seq) == (before.hash, 5)
    assert verify_file(path, log.head) is None
    assert "it continues in a new file" in caplog.text
    assert counted == [("audit.continued", 1)]
    old = tmp_path / "audit.log.1"
    if old.exists():
        assert verify_files([old, path], log.head) is None
        old.write_bytes(b"".join(old.read_bytes().splitlines(keepends=True)[:1]))
        broken = verify_files([old, path], log.head)
        assert broken is not None
        assert (broken[0], broken[1].line) == (path, 1), "the end of the first file is proved by the second"
    log.close()
    assert opened().append(5, {"a": 5}).seq == 6
    assert verify_file(path) is None


@pytest.mark.parametrize("how", ["other content", "cut", "added to", "a folder", "its folder is gone"])
def test_a_log_that_was_changed_otherwise_takes_no_line_until_it_is_moved(tmp_path, how):
    path = tmp_path / "logs" / "audit.log"
    path.parent.mkdir()
    log = AuditFile(path)
    log.append(1, {"a": 1})
    if how == "other content":
        path.unlink()
        path.write_bytes(b"something else\n")
    elif how == "cut":
        os.truncate(path, 5)
    elif how == "added to":
        with path.open("ab") as file:
            file.write(b"forged\n")
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.parent.rename(tmp_path / "gone")
    content = path.read_bytes() if path.is_file() else None
    for _ in range(2):
        with pytest.raises(OSError, match=r"move it|No such file"):
            log.append(2, {"a": 2})
    assert content is None or path.read_bytes() == content, "it is left as it is"
    path.parent.mkdir() if how.startswith("its folder") else path.rename(tmp_path / "away")
    log.append(2, {"a": 2})
    assert [event.get("state", event.get("a")) for event in events(path)] == ["CONTINUED", 2]
    assert verify_file(path, log.head) is None
    log.close()


def test_a_log_that_is_moved_within_a_write_has_its_lines_at_its_path_all_the_same(
    opened, tmp_path, monkeypatch
):
    path = tmp_path / "audit.log"
    log = opened()
    fsync = os.fsync
    moves = iter([path])

    def move(file):
        for moved in moves:
            moved.rename(tmp_path / "audit.log.1")
        fsync(file)

    log.append(1, {"a": 1})
    monkeypatch.setattr(os, "fsync", move)
    log.append(2, {"a": 2})
    assert [event.get("state", event.get("a")) for event in events(path)] == ["CONTINUED", 2]
    assert verify_files([tmp_path / "audit.log.1", path], log.head) is None


def test_a_file_that_continues_another_is_not_whole_by_a_head_from_before_it(opened, tmp_path):
    log = opened()
    early = log.append(1, {"a": 1})
    log.append(2, {"a": 2})
    (tmp_path / "audit.log").rename(tmp_path / "audit.log.1")
    log.append(3, {"a": 3})
    broken = verify_file(tmp_path / "audit.log", early)
    assert broken is not None
    assert "give that file before it" in broken.reason
    assert verify_files([tmp_path / "audit.log.1", tmp_path / "audit.log"], early) is None


def test_a_first_line_that_follows_another_without_saying_so_is_broken():
    lines, head = chain(5)
    assert broken_at(lines[2:], head) == 1


@pytest.mark.parametrize("how", ["moved", "emptied", "replaced by an empty file"])
def test_a_log_continues_when_there_is_space_again_where_its_first_line_did_not_fit(
    opened, tmp_path, monkeypatch, how
):
    path = tmp_path / "audit.log"
    log = opened()
    log.append(1, {"a": 1})
    LOST[how](path)
    write = os.write

    def full(file, content):
        write(file, bytes(content[:7]))
        raise OSError(28, "No space left on device")

    for _ in range(2):
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            log.append(2, {"a": 2})
        monkeypatch.setattr(os, "write", write)
        assert path.read_bytes() == b""
    log.append(2, {"a": 2})
    assert [event.get("state", event.get("a")) for event in events(path)] == ["CONTINUED", 2]
    assert verify_file(path, log.head) is None
