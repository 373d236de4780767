"""The header reader against files that are broken or made to harm."""

from __future__ import annotations

import os
import struct
import time
from contextlib import suppress
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_edge.errors import ModelFileError
from drift_edge.llama.gguf_header import GGUFHeader, read_header
from drift_edge.llama.model import Model
from tests import tiny

U32, F32, BOOL, STRING, ARRAY, U64 = 4, 6, 7, 8, 9, 10
QUICK = 2.0  # seconds of the processor; the slowest case takes some tenths


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small valid file."""
    return tiny.write(tmp_path_factory.mktemp("valid") / "m.gguf", tiny.byte_bpe()).read_bytes()


@pytest.fixture
def no_llama(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test that asks llama.cpp to load a file."""

    def refuse(*_: object) -> None:
        raise AssertionError("llama.cpp was asked to load the file")

    monkeypatch.setattr("llama_cpp.llama_cpp.llama_model_load_from_file", refuse)


# -- pieces of a file


def head(n_tensors: int = 0, n_keys: int = 0, *, version: int = 3, magic: bytes = b"GGUF", order: str = "<") -> bytes:
    return magic + struct.pack(f"{order}IQQ", version, n_tensors, n_keys)


def text(value: bytes, *, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, n: int, items: bytes) -> bytes:
    return struct.pack("<IQ", kind, n) + items


def strings(*values: bytes) -> bytes:
    return array(STRING, len(values), b"".join(map(text, values)))


def tensor(name: bytes, dims: tuple[int, ...], *, kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def floats(n: int) -> bytes:
    return bytes(4 * n)


def aligned(header: bytes, data: bytes, alignment: int = 32) -> bytes:
    return header + bytes(-len(header) % alignment) + data


BYTES = [b"<0x%02X>" % b for b in range(256)]
SPM_MODEL = key(b"tokenizer.ggml.model", STRING, text(b"llama"))
TOKENS = b"tokenizer.ggml.tokens"

HOSTILE: dict[str, tuple[bytes, str]] = {
    "one byte": (b"G", "magic"),
    "magic alone": (b"GGUF", "ends inside the version"),
    "wrong magic": (head(magic=b"GGML"), "magic"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), "magic"),
    "version 1": (head(version=1), "version 1"),
    "version 99": (head(version=99), "version 99"),
    "big endian": (head(order=">"), "big-endian"),
    "no tensor count": (head()[:8], "number of tensors"),
    "2^63 tensors": (head(1 << 63), "number of tensors"),
    "2^64-1 keys": (head(0, (1 << 64) - 1), "number of metadata keys"),
    "a million keys": (head(0, 1_000_000) + key(b"k", U32, bytes(4)) * 1000, "number of metadata keys is 1,000,000"),
    "fewer keys than said": (head(0, 2) + key(b"a", U32, bytes(4)), "a metadata key"),
    "key length 2^63": (head(0, 1) + text(b"a", length=1 << 63), "length of a metadata key"),
    "key longer than the file": (head(0, 1) + text(b"a", length=60_000), "only 1 are left"),
    "string length 2^63": (head(0, 1) + key(b"a", STRING, text(b"", length=1 << 63)), "length of 'a'"),
    "string longer than the file": (head(0, 1) + key(b"a", STRING, text(b"x", length=9)), "only 1 are left"),
    "array length 2^63": (head(0, 1) + key(b"a", ARRAY, array(U32, 1 << 63, b"")), "array length of 'a'"),
    "array of strings, length 2^63": (head(0, 1) + key(b"a", ARRAY, array(STRING, 1 << 63, b"")), "array length"),
    "49 bytes that hang other readers": (
        head(0, 1) + key(b"a", ARRAY, array(BOOL, (1 << 64) - 1, b"")),
        "array length",
    ),
    "array longer than the file": (head(0, 1) + key(b"a", ARRAY, array(F32, 3, floats(2))), "claims 12 bytes"),
    "string in an array past the end": (
        head(0, 1) + key(b"a", ARRAY, array(STRING, 2, text(b"x") + text(b"y", length=99))),
        "past the end",
    ),
    "string in an array of 2^64-8": (
        head(0, 1) + key(b"a", ARRAY, array(STRING, 2, text(b"", length=(1 << 64) - 8) + text(b""))),
        "past the end",
    ),
    "nested arrays": (head(0, 1) + key(b"a", ARRAY, array(ARRAY, 1, array(U32, 1, floats(1)))), "array of arrays"),
    "arrays nested a thousand deep": (head(0, 1) + key(b"a", ARRAY, struct.pack("<IQ", ARRAY, 1) * 1000), "of arrays"),
    "unknown type": (head(0, 1) + key(b"a", 13, bytes(8)), "unknown type 13"),
    "unknown element type": (head(0, 1) + key(b"a", ARRAY, array(77, 1, bytes(8))), "unknown type 77"),
    "duplicate keys": (head(0, 2) + key(b"a", U32, bytes(4)) * 2, "occurs twice"),
    "duplicate tensors": (aligned(head(2) + tensor(b"t", (4,)) * 2, floats(4)), "occurs twice"),
    "tensor name too long": (aligned(head(1) + tensor(b"t" * 64, (4,)), floats(4)), "length of a tensor name"),
    "no dimensions": (aligned(head(1) + tensor(b"t", ()), floats(4)), "0 dimensions"),
    "5 dimensions": (aligned(head(1) + tensor(b"t", (1,) * 5), floats(4)), "5 dimensions"),
    "2^32-1 dimensions": (head(1) + text(b"t") + b"\xff" * 4, "dimensions"),
    "a dimension of zero": (aligned(head(1) + tensor(b"t", (4, 0)), floats(4)), "0 elements"),
    "elements overflow": (aligned(head(1) + tensor(b"t", (1 << 62, 1 << 62)), floats(4)), "than the file can hold"),
    "huge, of a type unknown here": (aligned(head(1) + tensor(b"t", (1 << 40,), kind=999), floats(4)), "can hold"),
    "not whole blocks": (aligned(head(1) + tensor(b"t", (33,), kind=8), bytes(68)), "multiple of its block"),
    "offset past the end": (aligned(head(1) + tensor(b"t", (4,), offset=32), floats(4)), "ends at byte 48"),
    "offset 2^64-1": (aligned(head(1) + tensor(b"t", (4,), offset=(1 << 64) - 1), floats(4)), "ends at byte"),
    "tensor longer than the data": (aligned(head(1) + tensor(b"t", (5,)), floats(4)), "ends at byte 20"),
    "no data at all": (head(1) + tensor(b"t", (4,)), "ends at byte 16"),
    "alignment 0": (head(0, 1) + key(b"general.alignment", U32, bytes(4)), "alignment"),
    "alignment 24": (head(0, 1) + key(b"general.alignment", U32, struct.pack("<I", 24)), "alignment"),
    "alignment of text": (head(0, 1) + key(b"general.alignment", STRING, text(b"32")), "alignment"),
    "a token twice": (head(0, 1) + key(TOKENS, ARRAY, strings(b"a", b"b", b"a")), "b'a' twice"),
    "a token twice, up to a NUL": (head(0, 1) + key(TOKENS, ARRAY, strings(b"a", b"a\0b")), "b'a' twice"),
    "no token for a byte": (head(0, 2) + SPM_MODEL + key(TOKENS, ARRAY, strings(*BYTES[:-1])), "byte 0xFF"),
    "no layers": (
        head(0, 2) + key(b"general.architecture", STRING, text(b"x")) + key(b"x.block_count", U32, bytes(4)),
        "x.block_count is 0",
    ),
    "more experts used than there": (
        head(0, 2)
        + key(b"general.architecture", STRING, text(b"x"))
        + key(b"x.expert_used_count", U32, struct.pack("<I", 2)),
        "x.expert_used_count is 2",
    ),
}


@pytest.mark.usefixtures("no_llama")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_before_llama_cpp_sees_it(name: str, tmp_path: Path) -> None:
    raw, expected = HOSTILE[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(raw)
    start = time.process_time()
    with pytest.raises(ModelFileError, match=expected) as caught:
        Model(path)
    assert time.process_time() - start < QUICK
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_llama")
def test_what_is_no_file_at_all_is_refused(tmp_path: Path) -> None:
    empty, folder = tmp_path / "empty.gguf", tmp_path / "folder.gguf"
    empty.touch()
    folder.mkdir()
    cases = {empty: "is empty", folder: "not a regular file", tmp_path / "none.gguf": "No such file"}
    cases |= {Path("a\0b.gguf"): "null byte", Path("/dev/zero"): "not a regular|cannot read|No such file"}
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.gguf")
        cases[tmp_path / "pipe.gguf"] = "not a regular file"
    for path, expected in cases.items():
        with pytest.raises(ModelFileError, match=expected):
            Model(path)


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_refused(tmp_path: Path, valid: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(valid)
    path.chmod(0)
    with pytest.raises(ModelFileError, match="Permission denied"):
        read_header(path)


@pytest.mark.usefixtures("no_llama")
def test_truncated_anywhere_is_refused(tmp_path: Path, valid: bytes) -> None:
    path = tmp_path / "m.gguf"
    size = _data_end(valid)
    lengths = [*range(0, read_header_of(tmp_path, valid).header_bytes, 64), *range(0, size, 32_768), size - 1]
    for length in lengths:
        path.write_bytes(valid[:length])
        with pytest.raises(ModelFileError):
            Model(path)


def _data_end(raw: bytes) -> int:
    """Where the last tensor's own bytes end; what follows is padding that nobody reads."""
    return len(raw.rstrip(b"\0")) if raw.endswith(b"\0") else len(raw)


def read_header_of(folder: Path, raw: bytes) -> GGUFHeader:
    path = folder / "read.gguf"
    path.write_bytes(raw)
    return read_header(path)


def test_valid_file_says_what_gguf_says(tmp_path: Path, valid: bytes) -> None:
    header = read_header_of(tmp_path, valid)
    reader = gguf.GGUFReader(tmp_path / "read.gguf")
    assert header.version == 3
    assert header.architecture == "llama"
    assert header.n_tensors == len(reader.tensors) == sum(header.tensor_types.values())
    assert header.file_bytes == len(valid)
    for field in reader.fields.values():
        if field.name.startswith("GGUF."):
            continue
        found, wanted = header.metadata[field.name], field.contents()
        assert found == (len(wanted) if isinstance(wanted, list) else wanted), field.name


def test_fingerprint_follows_header_size_and_weights(tmp_path: Path, valid: bytes) -> None:
    header = read_header_of(tmp_path, valid)
    other_key = bytearray(valid)
    other_key[valid.index(b"general.name") + len("general.name") + 12] ^= 1
    assert len(header.fingerprint) == 16
    assert read_header_of(tmp_path, valid).fingerprint == header.fingerprint
    assert read_header_of(tmp_path, bytes(other_key)).fingerprint != header.fingerprint
    assert read_header_of(tmp_path, valid + bytes(32)).fingerprint != header.fingerprint
    assert read_header_of(tmp_path, valid[:-1] + bytes([valid[-1] ^ 1])).fingerprint != header.fingerprint


def test_long_strings_are_told_by_their_length(tmp_path: Path) -> None:
    raw = head(0, 2) + key(b"short", STRING, text(b"x" * 4096)) + key(b"long", STRING, text(b"x" * 4097))
    metadata = read_header_of(tmp_path, raw).metadata
    assert metadata["short"] == "x" * 4096
    assert metadata["long"] == "<4,097 bytes>"


def test_empty_tokens_may_repeat(tmp_path: Path) -> None:
    # llama.cpp gives each a name of its own.
    raw = head(0, 1) + key(TOKENS, ARRAY, strings(b"", b"a", b""))
    assert read_header_of(tmp_path, raw).metadata["tokenizer.ggml.tokens"] == 3


def test_experts_by_layer_are_no_number_to_check(tmp_path: Path) -> None:
    raw = head(0, 2) + key(b"general.architecture", STRING, text(b"x"))
    raw += key(b"x.expert_used_count", ARRAY, array(U32, 9, floats(9)))
    assert read_header_of(tmp_path, raw).metadata["x.expert_used_count"] == 9


def test_four_million_strings_end_in_time(tmp_path: Path) -> None:
    raw = head(0, 1) + key(b"a", ARRAY, array(STRING, 4_000_001, bytes(8 * 4_000_001)))
    start = time.process_time()
    with pytest.raises(ModelFileError, match="over 4,000,000 strings"):
        read_header_of(tmp_path, raw)
    assert time.process_time() - start < QUICK


SMALL = aligned(
    head(2, 7)
    + key(b"general.architecture", STRING, text(b"llama"))
    + key(b"general.alignment", U32, struct.pack("<I", 64))
    + key(b"llama.block_count", U32, struct.pack("<I", 2))
    + key(b"rope.freq_base", F32, struct.pack("<f", 1e4))
    + SPM_MODEL
    + key(TOKENS, ARRAY, strings(*BYTES, b"tea", b"water"))
    + key(b"tokenizer.ggml.scores", ARRAY, array(F32, 258, floats(258)))
    + tensor(b"a", (64, 2), kind=8)
    + tensor(b"b", (8,), offset=192),
    bytes(192 + 32),
    64,
)

# -- fuzz: whatever the bytes, the answer is a header or a ModelFileError, soon


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "m.gguf"


def _read(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    start = time.process_time()
    with suppress(ModelFileError):  # anything else is a failure
        read_header(path)
    assert time.process_time() - start < QUICK


FUZZ = settings(max_examples=200, deadline=None, derandomize=True)


@FUZZ
@given(raw=st.binary(max_size=400))
def test_random_bytes_behind_a_good_beginning(raw: bytes, scratch: Path) -> None:
    _read(scratch, b"GGUF" + struct.pack("<I", 3) + raw)


@FUZZ
@given(data=st.data())
def test_mutations_of_a_valid_file(data: st.DataObject, scratch: Path) -> None:
    raw = bytearray(SMALL)
    words = [0, 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1, 8, 9]
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(4, len(raw) - 8))
        word = data.draw(st.sampled_from(words) | st.integers(0, 2**64 - 1))
        width = data.draw(st.sampled_from([1, 4, 8]))
        raw[at : at + width] = word.to_bytes(8, "little")[:width]
    _read(scratch, bytes(raw))


def test_the_file_that_is_mutated_is_valid(tmp_path: Path) -> None:
    assert read_header_of(tmp_path, SMALL).n_tensors == 2


def test_a_vocabulary_that_would_end_the_process_is_caught_first(tmp_path: Path) -> None:
    """llama.cpp aborts on two equal tokens, and on a character without bytes: nothing here may get that far."""
    bpe, spm = tiny.byte_bpe(), tiny.spm()
    broken = [bpe.changed(5, text=bpe.tokens[6]), spm.changed(spm.id("<0xC3>"), text="odd")]
    for vocab in broken:
        with pytest.raises(ModelFileError, match=r"twice|0xC3"):
            Model(tiny.write(tmp_path / "m.gguf", vocab))
