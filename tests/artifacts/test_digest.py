"""The digest is the one in its definition, and every part of a file counts."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafleet.artifacts.digest import FileDigest, digest, hash_file

_HEX = hashlib.sha256(b"x").hexdigest()
_FILES = st.lists(
    st.builds(
        FileDigest,
        st.text("abcA._-é", min_size=1),
        st.integers(0, 2**40),
        st.binary(min_size=32, max_size=32).map(bytes.hex),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda file: file.path,
)


def test_it_is_what_a_shell_computes(tmp_path: Path) -> None:
    for name, content in (("b.json", b"{}"), ("B.md", b"hi"), ("a", b""), ("a.b", b"\0" * 5_000_000)):
        (tmp_path / name).write_bytes(content)
    script = """for f in $(ls | LC_ALL=C sort); do
        echo "$(sha256sum < $f | cut -c1-64) $(stat -c %s $f) $f"
    done | sha256sum"""
    shell = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert digest(hash_file(tmp_path, path.name) for path in tmp_path.iterdir()) == "sha256:" + shell[:64]


@given(_FILES, st.randoms())
def test_order_does_not_matter(files: list[FileDigest], random: object) -> None:
    shuffled = list(files)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert digest(shuffled) == digest(files)


@given(_FILES, _FILES)
def test_different_files_have_different_digests(one: list[FileDigest], other: list[FileDigest]) -> None:
    assert (digest(one) == digest(other)) == (set(one) == set(other))


@pytest.mark.parametrize(
    "files",
    [
        [],
        [FileDigest("a", 1, _HEX), FileDigest("a", 2, _HEX)],
        [FileDigest("a\nb", 1, _HEX)],
        [FileDigest("a", -1, _HEX)],
        [FileDigest("a", 1, "short")],
    ],
)
def test_ambiguous_input_is_refused(files: list[FileDigest]) -> None:
    with pytest.raises(ValueError, match="digest"):
        digest(files)
