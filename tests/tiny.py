"""Tiny Llama models as GGUF files: random weights, or scripted ones that say a given text.

They load in milliseconds and know nothing, which is enough for everything that does not depend on what a model says:
tokenizers, templates, caches, sampling, cancelling, and the formula itself.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# A template without a system role, as Gemma's.
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_WORDS = " the and you that what how make tea water with is to of in a good very Hello world user system assistant"


@dataclass(frozen=True)
class Vocab:
    """A tokenizer as GGUF keys: tokens, types, and the rest by key without `tokenizer.`."""

    model: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None = None
    merges: list[str] | None = None
    more: dict[str, Any] = field(default_factory=dict)
    raw: tuple[bytes, int] = (b"", 0)  # all keys as bytes, and their number, in place of the above

    def __len__(self) -> int:
        return len(self.tokens)

    def id(self, text: str) -> int:
        """The id of a token, by its stored text."""
        return self.tokens.index(text)

    def ids(self, text: str) -> list[int]:
        """One token for each byte of `text`, whatever the tokenizer would merge."""
        if self.model == "gpt2":
            chars = _byte_chars()
            return [self.id(chars[b]) for b in text.encode()]
        return [self.id(f"<0x{b:02X}>") for b in text.encode()]

    def changed(self, token: int, *, text: str | None = None, kind: int | None = None) -> Vocab:
        """The vocabulary with one token's text or type replaced."""
        tokens, types = list(self.tokens), list(self.types)
        tokens[token] = tokens[token] if text is None else text
        types[token] = types[token] if kind is None else kind
        return replace(self, tokens=tokens, types=types)

    def padded(self, n: int, *, kind: int = UNUSED, text: str = "[PAD{}]") -> Vocab:
        """The vocabulary with `n` tokens more that mean nothing."""
        names = [text.format(len(self) + i) for i in range(n)]
        scores = None if self.scores is None else [*self.scores, *[-1e3] * n]
        return replace(self, tokens=[*self.tokens, *names], types=[*self.types, *[kind] * n], scores=scores)

    def with_keys(self, **more: Any) -> Vocab:
        """The vocabulary with other keys, such as `chat_template`; None takes a key out. `__` stands for a dot."""
        keys = {**self.more, **{k.replace("__", "."): v for k, v in more.items()}}
        return replace(self, more={k: v for k, v in keys.items() if v is not None})


def _byte_chars() -> list[str]:
    """The printable character by which byte-level BPE files write each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(other)) for b in range(256)]


def byte_bpe() -> Vocab:
    """A byte-level BPE vocabulary of some 390 tokens; roles and the end of turn are control tokens, no BOS."""
    tokens = _byte_chars()
    merges: list[str] = []
    for word in _WORDS.split():
        for chars in (word, "\u0120" + word):  # \u0120 is how these files write a space
            left = chars[0]
            for char in chars[1:]:
                if left + char not in tokens:
                    merges.append(f"{left} {char}")
                    tokens.append(left + char)
                left += char
    types = [NORMAL] * len(tokens) + [CONTROL] * 4
    tokens += ["<|end|>", *ROLES]
    end = tokens.index("<|end|>")
    keys = {"ggml.pre": "gpt-2", "ggml.eos_token_id": end, "ggml.add_bos_token": False, "chat_template": TEMPLATE}
    return Vocab("gpt2", tokens, types, merges=merges, more=keys)


def spm() -> Vocab:
    """A SentencePiece vocabulary of some 370 tokens with byte tokens and `<s>` in front."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256
    pieces = ["\u2581", *"etaoinshrdlucmfwypvbgkjqxzHTIWA.,?!'"]
    for word in _WORDS.split():
        for n in range(2, len(word) + 2):
            pieces.append(f"\u2581{word}"[:n])
    pieces = list(dict.fromkeys(pieces))
    tokens += [*pieces, *ROLES, "<|end|>"]
    types += [NORMAL] * len(pieces) + [CONTROL] * 4
    # A longer piece has the better score, so that words are merged out of their beginnings.
    scores = [0.0] * 259 + [float(10 * len(p) - 1000) - i / 1000 for i, p in enumerate(pieces)] + [0.0] * 4
    keys = {
        "ggml.pre": "default",
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
        "ggml.unknown_token_id": 0,
        "ggml.add_bos_token": True,
        "chat_template": "{{ bos_token }}" + TEMPLATE,
    }
    return Vocab("llama", tokens, types, scores=scores, more=keys)


def from_gguf(path: Path) -> Vocab:
    """The tokenizer of a trusted GGUF file: its `tokenizer.` keys as they stand there, byte for byte."""
    data = path.read_bytes()
    n_keys, at = struct.unpack_from("<Q", data, 16)[0], 24
    raw, n_raw, n_tokens = b"", 0, 0
    for _ in range(n_keys):
        start = at
        (length,) = struct.unpack_from("<Q", data, at)
        name = data[at + 8 : at + 8 + length].decode()
        at += 8 + length
        (kind,) = struct.unpack_from("<I", data, at)
        at, n = _skip(data, at + 4, kind)
        if name.startswith("tokenizer."):
            raw += data[start:at]
            n_raw += 1
        if name == "tokenizer.ggml.tokens":
            n_tokens = n
    return Vocab("foreign", [""] * n_tokens, [], raw=(raw, n_raw))


def _skip(data: bytes, at: int, kind: int) -> tuple[int, int]:
    """Where a value ends, and how many elements it has."""
    n, is_array = 1, kind == _ARRAY
    if is_array:
        kind, n = struct.unpack_from("<IQ", data, at)
        at += 12
    if kind != _STRING:
        return at + n * {0: 1, 1: 1, 2: 2, 3: 2, _BOOL: 1, 10: 8, 11: 8, 12: 8}.get(kind, 4), n
    for _ in range(n):
        at += 8 + struct.unpack_from("<Q", data, at)[0]
    return at, n


def write(
    path: Path,
    vocab: Vocab,
    *,
    seed: int = 0,
    dim: int = 32,
    layers: int = 1,
    heads: int = 2,
    n_ctx: int = 512,
    quant: str = "F32",
    sharpness: float = 2.0,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a Llama model with random weights whose logits depend on the whole prompt.

    Args:
        seed: of the weights.
        dim: of the residual stream; a multiple of 32.
        quant: type of the matrices, `F32`, `F16` or `Q8_0`.
        sharpness: standard deviation of the logits, about; 0 makes all tokens equally likely.
        tensors: replace the random ones of these names.
    """
    rng = np.random.default_rng(seed)
    n, ff = len(vocab), 2 * dim

    def matrix(rows: int, cols: int, gain: float = 1.0) -> np.ndarray:
        return (rng.standard_normal((rows, cols), np.float32) * np.float32(gain / np.sqrt(cols))).astype(np.float32)

    made = {"token_embd.weight": matrix(n, dim, np.sqrt(dim)), "output_norm.weight": np.ones(dim, np.float32)}
    made["output.weight"] = matrix(n, dim, sharpness)
    for i in range(layers):
        shapes = {"attn_q": (dim, dim), "attn_k": (dim, dim), "attn_v": (dim, dim), "attn_output": (dim, dim)}
        shapes |= {"ffn_gate": (ff, dim), "ffn_up": (ff, dim), "ffn_down": (dim, ff)}
        made |= {f"blk.{i}.{name}.weight": matrix(*shape, 2.0) for name, shape in shapes.items()}
        made |= {f"blk.{i}.{name}_norm.weight": np.ones(dim, np.float32) for name in ("attn", "ffn")}
    made |= dict(tensors or {})
    _save(path, vocab, made, quant, {"dim": dim, "layers": layers, "heads": heads, "ff": ff, "n_ctx": n_ctx})
    return path


def write_script(
    path: Path, vocab: Vocab, follow: Mapping[int, int], *, n_ctx: int = 512, margin: float = 30.0
) -> Path:
    """Write a model whose next token depends on the last one alone: `follow[a]` comes after `a`.

    Its embedding is one-hot, its layer adds nothing, and its output matrix is the table. Tokens that `follow` does not
    name are followed by themselves.

    Args:
        margin: by how many nats the scripted token leads.
    """
    n = len(vocab)
    dim = -(-n // 32) * 32
    out = np.zeros((n, dim), np.float32)
    for a in range(n):
        out[follow.get(a, a), a] = margin / np.sqrt(dim)  # the norm makes a one-hot vector sqrt(dim) long
    zero = {f"blk.0.{name}.weight": np.zeros((dim, dim), np.float32) for name in ("attn_output",)}
    zero["blk.0.ffn_down.weight"] = np.zeros((dim, 2 * dim), np.float32)
    tensors = {"token_embd.weight": np.eye(n, dim, dtype=np.float32), "output.weight": out, **zero}
    return write(path, vocab, dim=dim, n_ctx=n_ctx, tensors=tensors)


def say(vocab: Vocab, tokens: Sequence[int], *, start: str = "<|assistant|>", end: str = "<|end|>") -> dict[int, int]:
    """The table of a model that answers with `tokens`, all different, and then ends its turn."""
    if len(set(tokens)) != len(tokens):
        raise ValueError("the tokens of a script must differ: the next one depends on the last alone")
    chain = [vocab.id(start), *tokens, vocab.id(end)]
    return dict(pairwise(chain))


def write_pair(folder: Path, vocab: Vocab, *, seed: int = 1, quant: str = "F32", n_ctx: int = 512) -> tuple[Path, Path]:
    """An LLM and a smaller sLM with one tokenizer, different random weights; their paths."""
    llm = write(folder / "llm.gguf", vocab, seed=seed, dim=64, layers=2, n_ctx=n_ctx, quant=quant)
    return llm, write(folder / "slm.gguf", vocab, seed=seed + 1, n_ctx=n_ctx, quant=quant)


def _save(path: Path, vocab: Vocab, tensors: Mapping[str, np.ndarray], quant: str, shape: Mapping[str, int]) -> None:
    keys: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": path.stem,
        "llama.context_length": shape["n_ctx"],
        "llama.embedding_length": shape["dim"],
        "llama.block_count": shape["layers"],
        "llama.feed_forward_length": shape["ff"],
        "llama.attention.head_count": shape["heads"],
        "llama.attention.head_count_kv": shape["heads"],
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": shape["dim"] // shape["heads"],
        "llama.vocab_size": len(vocab),
    }
    raw, n_raw = vocab.raw
    if not n_raw:
        keys |= {"tokenizer.ggml.model": vocab.model, "tokenizer.ggml.tokens": vocab.tokens}
        keys |= {"tokenizer.ggml.token_type": vocab.types}
        keys |= {} if vocab.scores is None else {"tokenizer.ggml.scores": vocab.scores}
        keys |= {} if vocab.merges is None else {"tokenizer.ggml.merges": vocab.merges}
        keys |= {f"tokenizer.{key}": value for key, value in vocab.more.items()}
    infos, data = b"", b""
    for name, tensor in tensors.items():
        kind = gguf.GGMLQuantizationType[quant] if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
        data += bytes(-len(data) % 32)
        dims = tensor.shape[::-1]
        infos += _text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, len(data))
        data += gguf.quants.quantize(tensor, kind).tobytes()
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys) + n_raw)
    header += b"".join(_text(key) + _value(value) for key, value in keys.items()) + raw + infos
    path.write_bytes(header + bytes(-len(header) % 32) + data)


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "replace")
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    """A value with its type in front: whole numbers are uint32 alone and int32 in arrays, as llama.cpp expects."""
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    kind = _STRING if isinstance(value[0], str) else _FLOAT32 if isinstance(value[0], float) else _INT32
    head = struct.pack("<IIQ", _ARRAY, kind, len(value))
    if kind == _STRING:
        return head + b"".join(map(_text, value))
    return head + struct.pack(f"<{len(value)}{'f' if kind == _FLOAT32 else 'i'}", *value)
