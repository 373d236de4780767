"""A bounded reader of an untrusted GGUF header, run before any other reader touches the file.

Other parsers loop over counts that the file itself states; a hand-made file of 49 bytes can hang one of them for
ever. Here every count and length is first held against what is left of the file and against fixed bounds, so the
time and memory spent are limited whatever the file says. Of the tensor data only samples are read, for the fingerprint.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections import Counter
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import NoReturn

from drift_edge.errors import ModelFileError, UsageError

MAX_KEYS = 10_000
MAX_TENSORS = 100_000
MAX_ITEMS = 4_000_000  # array elements walked one by one (strings), over the whole header
MAX_TOKENS = 2_000_000
MAX_KEY_BYTES = 65_535
MAX_STRING_BYTES = 64 << 20
MAX_TENSOR_NAME = 63  # GGML_MAX_NAME, less its closing zero
MAX_DIMS = 4
MAX_LAYERS = 512
MAX_EXPERTS = 1_024
MAX_ELEMENTS_PER_BYTE = 16  # the densest types known have under 8
_SAMPLES, _SAMPLE_BYTES = 64, 4_096  # of the tensor data
_KEPT_STRING = 4_096  # longer strings (chat templates) are skipped here, llama.cpp hands them over

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "?", 10: "<Q", 11: "<q", 12: "<d"}


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """What the header of a checked GGUF file says.

    Attributes:
        version: GGUF version, 2 or 3.
        metadata: scalars and strings of at most 4,096 bytes; of an array, its length under its key.
        n_tensors: number of tensors.
        tensor_types: ggml type ids in use, with the number of tensors of each.
        header_bytes: size of the header, up to the last tensor's description.
        file_bytes: size of the file.
        fingerprint: 16 hex digits of SHA-256 over the header, the file's size and samples of the weights.
    """

    version: int
    metadata: dict[str, str | int | float | bool]
    n_tensors: int
    tensor_types: dict[int, int] = field(default_factory=dict)
    header_bytes: int = 0
    file_bytes: int = 0
    fingerprint: str = ""

    @property
    def architecture(self) -> str:
        """`general.architecture`, or an empty string."""
        return str(self.metadata.get("general.architecture", ""))


def check_path(value: object, at: str) -> None:
    """Refuse what cannot be the path of a model.

    Args:
        at: the argument's name, for error messages.

    Raises:
        UsageError: neither text nor a path.
    """
    if not isinstance(value, (str, PathLike)):
        raise UsageError(f"{at}: expected the path of a GGUF file, got {value!r}")


def read_header(path: str | Path) -> GGUFHeader:
    """Check and read the header of `path`.

    Raises:
        ModelFileError: missing, empty, truncated, not GGUF, or a count, length, type or offset that cannot be right.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # asked first: to open a pipe is to wait for its other end
            raise ModelFileError(f"{path}: not a regular file; expected a GGUF model")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise ModelFileError(f"{path}: the file is empty; expected a GGUF model")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return _Reader(path, view, size).read()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot read the model file: {error.strerror or error}") from error
    except ValueError as error:  # a path with a NUL in it
        raise ModelFileError(f"{str(path)!r}: cannot read the model file: {error}") from error


class _Reader:
    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self.path, self.data, self.size = path, data, size
        self.at = 0
        self.items = 0
        self.tokens: list[bytes] = []
        self.arrays: set[str] = set()

    def fail(self, found: str) -> NoReturn:
        raise ModelFileError(
            f"{self.path}: {found} (at byte {self.at:,} of {self.size:,}); "
            "the file is damaged, cut short or not a GGUF model: fetch it again"
        )

    def scalar(self, code: str, what: str) -> int | float | bool:
        n = struct.calcsize(code)
        if n > self.size - self.at:
            self.fail(f"the file ends inside {what}")
        (value,) = struct.unpack_from(code, self.data, self.at)
        self.at += n
        return value  # type: ignore[no-any-return]

    def count(self, what: str, most: int) -> int:
        value = int(self.scalar("<Q", what))
        if value > most:
            self.fail(f"{what} is {value:,}, at most {most:,} expected")
        return value

    def skip(self, n: int, what: str) -> int:
        """Move over n bytes and return where they began."""
        if n > self.size - self.at:
            self.fail(f"{what} claims {n:,} bytes, only {self.size - self.at:,} are left")
        start = self.at
        self.at += n
        return start

    def string(self, what: str, most: int) -> bytes:
        n = self.count(f"the length of {what}", most)
        start = self.skip(n, what)
        return self.data[start : start + n]

    def read(self) -> GGUFHeader:
        magic = self.data[:4]
        if magic != b"GGUF":
            self.fail(f"expected the magic bytes b'GGUF', found {magic!r}")
        self.at = 4
        version = int(self.scalar("<I", "the version"))
        if version not in (2, 3):
            hint = " (big-endian files are not supported)" if version in (0x02000000, 0x03000000) else ""
            self.fail(f"GGUF version {version}, expected 2 or 3{hint}")
        n_tensors = self.count("the number of tensors", MAX_TENSORS)
        n_keys = self.count("the number of metadata keys", MAX_KEYS)
        metadata: dict[str, str | int | float | bool] = {}
        for _ in range(n_keys):
            key = self.string("a metadata key", MAX_KEY_BYTES).decode("utf-8", "replace")
            if key in metadata:
                self.fail(f"metadata key {key!r} occurs twice")
            metadata[key] = self.value(key)
        self.vocabulary(metadata.get("tokenizer.ggml.model"))
        self.hyperparameters(metadata)
        types = self.tensors(n_tensors, metadata)
        digest = hashlib.sha256(memoryview(self.data)[: self.at])
        digest.update(self.size.to_bytes(8, "little"))
        # A model trained on has the same header and size; all of its weights would take seconds to read.
        for start in range(self.at, self.size, -(-(self.size - self.at) // _SAMPLES) or 1):
            digest.update(self.data[start : start + _SAMPLE_BYTES])
        return GGUFHeader(version, metadata, n_tensors, types, self.at, self.size, digest.hexdigest()[:16])

    def value(self, key: str) -> str | int | float | bool:
        kind = int(self.scalar("<I", f"the type of {key!r}"))
        if kind == _STRING:
            text = self.string(f"{key!r}", MAX_STRING_BYTES)
            return text.decode("utf-8", "replace") if len(text) <= _KEPT_STRING else f"<{len(text):,} bytes>"
        if kind == _ARRAY:
            return self.array(key)
        if kind not in _SCALARS:
            self.fail(f"{key!r} has the unknown type {kind}")
        return self.scalar(_SCALARS[kind], f"{key!r}")

    def array(self, key: str) -> int:
        self.arrays.add(key)
        kind = int(self.scalar("<I", f"the element type of {key!r}"))
        if kind == _ARRAY:
            self.fail(f"{key!r} is an array of arrays, which no known model has")
        if kind != _STRING and kind not in _SCALARS:
            self.fail(f"{key!r} has elements of the unknown type {kind}")
        least = 8 if kind == _STRING else struct.calcsize(_SCALARS[kind])
        n = self.count(f"the array length of {key!r}", (self.size - self.at) // least)
        if kind != _STRING:
            self.skip(n * least, f"{key!r}")
            return n
        self.items += n
        if self.items > MAX_ITEMS:
            self.fail(f"the arrays hold over {MAX_ITEMS:,} strings")
        start = self.at
        data, at, size, unpack = self.data, self.at, self.size, struct.Struct("<Q").unpack_from
        for _ in range(n):  # the hot loop: a real vocabulary has up to half a million strings
            at += 8 + (unpack(data, at)[0] if at + 8 <= size else size)
            if at > size:
                self.fail(f"a string in {key!r} runs past the end of the file")
        self.at = at
        if key == "tokenizer.ggml.tokens":
            self.tokens = self.strings(start, n)
        return n

    def strings(self, at: int, n: int) -> list[bytes]:
        """The n strings from `at` on, already known to lie within the file."""
        if n > MAX_TOKENS:
            self.fail(f"the vocabulary has {n:,} tokens, at most {MAX_TOKENS:,} expected")
        data, unpack, found = self.data, struct.Struct("<Q").unpack_from, []
        for _ in range(n):
            (length,) = unpack(data, at)
            found.append(data[at + 8 : at + 8 + length])
            at += 8 + length
        return found

    def vocabulary(self, model: object) -> None:
        """Refuse what llama.cpp would answer by ending the process, while loading or at the first odd character."""
        # llama.cpp reads up to a NUL, and gives empty tokens names of their own.
        named = [text for token in self.tokens if (text := token.split(b"\0", 1)[0])]
        known = set(named)
        if len(known) < len(named):
            self.fail(f"the vocabulary has the token {Counter(named).most_common(1)[0][0]!r} twice")
        if model == "llama" and known:
            for byte in range(256):
                if b"<0x%02X>" % byte not in known and bytes([byte]) not in known:
                    self.fail(f"the vocabulary has no token for the byte 0x{byte:02X}")

    def hyperparameters(self, metadata: dict[str, str | int | float | bool]) -> None:
        """The same for the numbers that describe the network."""
        at = metadata.get("general.architecture", "")
        experts = metadata.get(f"{at}.expert_count", 0)
        experts = experts if isinstance(experts, int) else 0
        for key, low, high in (
            ("block_count", 1, MAX_LAYERS),
            ("expert_count", 0, MAX_EXPERTS),
            ("expert_used_count", 0, experts),
        ):
            name = f"{at}.{key}"
            value = metadata.get(name, low)
            if name not in self.arrays and (not isinstance(value, int) or not low <= value <= high):
                self.fail(f"{name} is {value!r}, expected {low} to {high}")

    def tensors(self, n_tensors: int, metadata: dict[str, str | int | float | bool]) -> dict[int, int]:
        # gguf's constants only: its reader trusts the file.
        from gguf.constants import GGML_QUANT_SIZES

        sizes = {int(kind): pair for kind, pair in GGML_QUANT_SIZES.items()}
        types: dict[int, int] = {}
        ends: list[tuple[str, int]] = []
        names: set[bytes] = set()
        for _ in range(n_tensors):
            raw = self.string("a tensor name", MAX_TENSOR_NAME)
            if raw in names:
                self.fail(f"tensor {raw!r} occurs twice")
            names.add(raw)
            name = raw.decode("utf-8", "replace")
            n_dims = int(self.scalar("<I", f"the dimensions of tensor {name!r}"))
            if not 1 <= n_dims <= MAX_DIMS:
                self.fail(f"tensor {name!r} has {n_dims} dimensions, expected 1 to {MAX_DIMS}")
            elements = 1
            for _ in range(n_dims):
                elements *= int(self.scalar("<Q", f"the dimensions of tensor {name!r}"))
            kind = int(self.scalar("<I", f"the type of tensor {name!r}"))
            offset = int(self.scalar("<Q", f"the offset of tensor {name!r}"))
            block, block_bytes = sizes.get(kind, (1, 0))  # a type newer than gguf's table: its offset is still checked
            if elements == 0 or elements % block:
                self.fail(f"tensor {name!r} has {elements:,} elements, not a multiple of its block of {block}")
            if elements > self.size * MAX_ELEMENTS_PER_BYTE:
                self.fail(f"tensor {name!r} has {elements:,} elements, more than the file can hold")
            types[kind] = types.get(kind, 0) + 1
            ends.append((name, offset + elements // block * block_bytes))
        alignment = metadata.get("general.alignment", 32)
        if isinstance(alignment, bool) or not isinstance(alignment, int) or alignment.bit_count() != 1 or alignment < 0:
            self.fail(f"general.alignment is {alignment!r}, expected a power of 2")
        data_bytes = self.size - -(-self.at // alignment) * alignment
        for name, end in ends:
            if end > data_bytes:
                self.fail(f"tensor {name!r} ends at byte {end:,} of the data, which has {max(data_bytes, 0):,}")
        return types
