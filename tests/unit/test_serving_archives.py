"""Archives that are unpacked, and those that are refused with nothing written outside."""

import gzip
import io
import stat
import tarfile
import zipfile

import pytest

from components.errors import BadBundle
from serving.archives import Most, unpack

SMALL = Most(entries=20, bytes=200_000, file_bytes=100_000, ratio=20, free_bytes=150_000)


def tar(path, *members, packed=False):
    with tarfile.open(path, "w:gz" if packed else "w") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def entry(name, kind=tarfile.REGTYPE, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def zipped(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return path


def with_mode(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_files_and_folders_come_out_as_they_are(tmp_path, ending):
    path = tmp_path / f"bundle{ending}"
    if ending == ".zip":
        zipped(path, ("bundle.json", b"{}"), ("deep/er/model.onnx", b"onnx"))
    else:
        folder = entry("deep", tarfile.DIRTYPE)
        tar(
            path,
            (entry("./bundle.json"), b"{}"),
            (folder, b""),
            (entry("deep/er/model.onnx"), b"onnx"),
            packed="gz" in ending,
        )
    into = tmp_path / "into"
    into.mkdir()
    unpack(path, into)
    assert {str(file.relative_to(into)): file.read_bytes() for file in into.rglob("*") if file.is_file()} == {
        "bundle.json": b"{}",
        "deep/er/model.onnx": b"onnx",
    }


HOSTILE = {
    "traversal": lambda p: tar(p, (entry("a/../../out"), b"x")),
    "absolute": lambda p: tar(p, (entry("/etc/out"), b"x")),
    "symlink": lambda p: tar(p, (entry("a", tarfile.SYMTYPE, "/etc"), b""), (entry("a/passwd"), b"x")),
    "hard link": lambda p: tar(p, (entry("a", tarfile.LNKTYPE, "/etc/passwd"), b"")),
    "device": lambda p: tar(p, (entry("a", tarfile.CHRTYPE), b"")),
    "fifo": lambda p: tar(p, (entry("a", tarfile.FIFOTYPE), b"")),
    "twice": lambda p: tar(p, (entry("a"), b"x"), (entry("./a"), b"y")),
    "file as folder": lambda p: tar(p, (entry("a"), b"x"), (entry("a/b"), b"y")),
    "too many": lambda p: tar(p, *((entry(f"f{i}"), b"") for i in range(21))),
    "large file": lambda p: tar(p, (entry("a"), b"x" * 100_001)),
    "large in all": lambda p: tar(p, *((entry(f"f{i}"), b"x" * 90_000) for i in range(3))),
    "backslash": lambda p: tar(p, (entry("..\\out"), b"x")),
    "bomb": lambda p: tar(p, *((entry(f"f{i}"), bytes(99_000)) for i in range(2)), packed=True),
    "headers": lambda p: tar(p, *((entry("long", tarfile.GNUTYPE_LONGNAME), b"a" * 5_000) for _ in range(100))),
    "chain": lambda p: tar(p, *((entry("long", tarfile.GNUTYPE_LONGNAME), b"") for _ in range(3_000)), packed=True),
    "no archive": lambda p: p.write_bytes(b"hello" * 1000),
    "cut off": lambda p: p.write_bytes(tar(p, (entry("a"), b"x" * 5_000)).read_bytes()[:2_000]),
}
HOSTILE_ZIP = {
    "traversal": lambda p: zipped(p, ("../out", b"x")),
    "absolute": lambda p: zipped(p, ("/out", b"x")),
    "drive": lambda p: zipped(p, ("C:out", b"x")),
    "symlink": lambda p: zipped(p, (with_mode("a", stat.S_IFLNK | 0o777), b"/etc/passwd")),
    "device": lambda p: zipped(p, (with_mode("a", stat.S_IFCHR | 0o600), b"")),
    "bomb": lambda p: zipped(p, *((f"f{i}", bytes(99_000)) for i in range(2))),
    "large file": lambda p: zipped(p, ("a", bytes(100_001))),
    "too many": lambda p: zipped(p, *((f"f{i}", b"") for i in range(21))),
    "no archive": lambda p: p.write_bytes(b"hello" * 1000),
}


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_tar_is_refused_before_anything_is_written(tmp_path, what, ending):
    path = tmp_path / f"bundle{ending}"
    HOSTILE[what](path)
    if ending == ".tar.gz" and what not in ("bomb", "chain"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BadBundle, match=r"not opened|cannot be read"):
        unpack(path, into, SMALL)
    assert list(into.iterdir()) == []
    assert {child.name for child in tmp_path.iterdir()} == {path.name, "into"}


@pytest.mark.parametrize("what", HOSTILE_ZIP)
def test_a_hostile_zip_is_refused_before_anything_is_written(tmp_path, what):
    path = tmp_path / "bundle.zip"
    HOSTILE_ZIP[what](path)
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BadBundle, match=r"not opened|cannot be read"):
        unpack(path, into, SMALL)
    assert list(into.iterdir()) == []


def test_bytes_are_counted_as_they_come_and_not_as_the_archive_states_them(tmp_path):
    path = zipped(tmp_path / "liar.zip", ("a", b"x" * 90_000), ("b", b"x" * 90_000))
    raw = path.read_bytes()
    path.write_bytes(raw.replace((90_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BadBundle):
        unpack(path, into, SMALL)
    assert sum(file.stat().st_size for file in into.iterdir()) <= SMALL.bytes


def test_a_long_header_of_a_tar_is_not_read(tmp_path):
    header = entry("pax", tarfile.XHDTYPE)
    path = tar(tmp_path / "bundle.tar", (header, b"x" * 3_000_000))
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BadBundle, match="a header of 3,000,000 bytes"):
        unpack(path, into)


def test_sparse_files_are_refused(tmp_path):
    path = tmp_path / "bundle.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = entry("a")
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9999999999"}
        member.size = 512
        archive.addfile(member, io.BytesIO(b"1\n0\n1\n" + bytes(506)))
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(BadBundle, match="a sparse file"):
        unpack(path, into)
