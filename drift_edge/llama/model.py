"""Model: the weights and the vocabulary of one GGUF file."""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from llama_cpp import llama_cpp as lib

from drift_edge.errors import ClosedError, ModelFileError
from drift_edge.llama import library
from drift_edge.llama.gguf_header import GGUFHeader, check_path, read_header
from drift_edge.llama.template import CHATML, PLAIN, ChatTemplate

_BLANKS = " \t\n\u2581"  # tokens of blanks alone stand in templates, but mark nothing


class Model:
    """One GGUF model in memory (mapped), with its vocabulary.

    Args:
        path: the GGUF file.
        gpu_layers: layers to offload; None means all where the build of llama.cpp can, else 0.
        vocab_only: load the vocabulary alone, no weights.

    Raises:
        ModelFileError: the file is missing, damaged or refused by llama.cpp.
        UsageError: `path` is none.
    """

    def __init__(self, path: str | Path, *, gpu_layers: int | None = None, vocab_only: bool = False) -> None:
        check_path(path, "path")
        self.path = Path(path)
        self.header: GGUFHeader = read_header(self.path)
        library.start()
        params = lib.llama_model_default_params()
        if gpu_layers is None:
            gpu_layers = -1 if library.supports_gpu() else 0
        params.n_gpu_layers = gpu_layers
        params.vocab_only = vocab_only
        params.use_extra_bufts = params.use_extra_bufts and not library.has_amx()
        self.offloaded = gpu_layers != 0 and library.supports_gpu()
        self._closed = False
        self._contexts = 0
        self._lock = threading.RLock()  # of the two above
        self._handle: int | None = lib.llama_model_load_from_file(os.fsencode(self.path), params)
        if not self._handle:
            raise ModelFileError(
                f"{self.path}: llama.cpp cannot load this model (architecture {self.header.architecture!r}); "
                "its own words are in the log `drift_edge.llama` (--verbose shows it)"
            )
        self._vocab_pointer = vocab = lib.llama_model_get_vocab(self._handle)
        self.n_vocab = int(lib.llama_vocab_n_tokens(vocab))
        self._is_spm = lib.llama_vocab_type(vocab) == lib.LLAMA_VOCAB_TYPE_SPM
        # Asked for the tokens of a vocabulary of the kind `none`, llama.cpp ends the process.
        if self.n_vocab <= 0 or lib.llama_vocab_type(vocab) == lib.LLAMA_VOCAB_TYPE_NONE:
            self.close()
            raise ModelFileError(f"{self.path}: the model has no vocabulary; expected a chat or text model")

    # -- life

    @property
    def handle(self) -> int:
        """llama.cpp's pointer.

        Raises:
            ClosedError: the model has been closed.
        """
        if self._closed or self._handle is None:
            raise ClosedError(f"{self.path}: the model has been closed")
        return self._handle

    @property
    def _vocab(self) -> object:
        if self._closed:
            raise ClosedError(f"{self.path}: the model has been closed")
        return self._vocab_pointer

    def close(self) -> None:
        """Free the weights, or where contexts are still open, let the last of them do it. Nothing new can be begun."""
        with self._lock:
            self._closed = True
            self._free_unused()

    def hold(self) -> int:
        """As `handle`, for a context: what it points to stays until as many calls of `release`.

        Raises:
            ClosedError: the model has been closed.
        """
        with self._lock:
            handle = self.handle
            self._contexts += 1
            return handle

    def release(self) -> None:
        """Take back a `hold`."""
        with self._lock:
            self._contexts -= 1
            self._free_unused()

    def _free_unused(self) -> None:
        if self._closed and not self._contexts and self._handle:
            lib.llama_model_free(self._handle)
            self._handle = None

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # -- facts

    @property
    def name(self) -> str:
        """`general.name`, or the file's name."""
        return str(self.header.metadata.get("general.name") or os.fsencode(self.path.stem).decode("utf-8", "replace"))

    @property
    def fingerprint(self) -> str:
        """16 hex digits naming this file: SHA-256 of header, size and samples of the weights."""
        return self.header.fingerprint

    @cached_property
    def n_ctx_train(self) -> int:
        """Context length the model was trained for, in tokens."""
        return int(lib.llama_model_n_ctx_train(self.handle))

    @cached_property
    def n_bytes(self) -> int:
        """Size of all tensors, in bytes."""
        return int(lib.llama_model_size(self.handle))

    @cached_property
    def n_params(self) -> int:
        """Number of parameters."""
        return int(lib.llama_model_n_params(self.handle))

    @cached_property
    def description(self) -> str:
        """llama.cpp's short description, such as `llama 1B Q8_0`."""
        buffer = ctypes.create_string_buffer(256)
        lib.llama_model_desc(self.handle, buffer, 256)
        return buffer.value.decode("utf-8", "replace")

    @cached_property
    def kv_width(self) -> int:
        """Numbers that a KV cache keeps for one token, over all layers."""
        head = int(lib.llama_model_n_embd(self.handle)) // max(1, int(lib.llama_model_n_head(self.handle)))
        at, metadata = f"{self.header.architecture}.attention", self.header.metadata
        key, value = (int(metadata.get(f"{at}.{which}_length", head)) for which in ("key", "value"))
        return int(lib.llama_model_n_layer(self.handle) * lib.llama_model_n_head_kv(self.handle)) * (key + value)

    @cached_property
    def can_roll_back(self) -> bool:
        """Whether tokens can be taken out of its cache again: not so for recurrent and hybrid models."""
        return not (lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle))

    # -- vocabulary

    def token_text(self, token: int) -> bytes:
        """The vocabulary's entry for `token`, as stored in the file."""
        return bytes(lib.llama_vocab_get_text(self._vocab, token) or b"")

    def token_attr(self, token: int) -> int:
        """llama.cpp's attribute bits of `token` (LLAMA_TOKEN_ATTR_*)."""
        return self._attrs[token]

    @cached_property
    def _attrs(self) -> list[int]:
        vocab = self._vocab
        return [int(lib.llama_vocab_get_attr(vocab, t)) for t in range(self.n_vocab)]

    @cached_property
    def special_ids(self) -> dict[str, int]:
        """Ids of the special tokens; -1 where the vocabulary has none."""
        v = self._vocab
        return {
            "bos": int(lib.llama_vocab_bos(v)),
            "eos": int(lib.llama_vocab_eos(v)),
            "eot": int(lib.llama_vocab_eot(v)),
            "nl": int(lib.llama_vocab_nl(v)),
            "pad": int(lib.llama_vocab_pad(v)),
        }

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Ids that end an answer (end of turn, end of text, and their kin)."""
        return frozenset(t for t in range(self.n_vocab) if lib.llama_vocab_is_eog(self._vocab, t))

    @property
    def end_id(self) -> int:
        """The id that ends an answer: end of turn, or end of text where the vocabulary has none."""
        eot = self.special_ids["eot"]
        return eot if eot >= 0 else self.special_ids["eos"]

    @cached_property
    def control_pattern(self) -> re.Pattern[str]:
        """Matches the text of any of `control_ids`."""
        texts = (self.token_text(t).decode("utf-8", "replace") for t in self.control_ids)
        longest_first = sorted(filter(None, texts), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Tokens that text typed by a person must never become: control tokens, and the chat template's own."""
        bits = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        return self._markup_ids | {t for t in range(self.n_vocab) if self.token_attr(t) & bits}

    @cached_property
    def _markup_ids(self) -> frozenset[int]:
        """User-defined tokens that the chat template writes: some models mark their turns with them."""
        source = self.template_source or ""
        return frozenset(
            t
            for t in range(self.n_vocab)
            if self.token_attr(t) & lib.LLAMA_TOKEN_ATTR_USER_DEFINED
            and (text := self.token_text(t).decode("utf-8", "replace")).strip(_BLANKS)
            and text in source
        )

    def tokenize_typed(self, text: str, *, continues: bool = False) -> list[int]:
        """Token ids of text that a person typed: none of them is one of `control_ids`, whatever the text.

        Args:
            text: any text.
            continues: as in `tokenize`.
        """
        ids = self.tokenize(text, special=False, continues=continues)
        if self._markup_ids.isdisjoint(ids):
            return ids
        # llama.cpp finds user-defined tokens even where it was told to find no special ones; cut in two, they are text.
        cuts = [0, *(match.start() + 1 for match in self.control_pattern.finditer(text)), len(text)]
        parts = [text[a:b] for a, b in pairwise(cuts)]
        cut = [t for part in parts for t in self.tokenize(part, special=False, continues=True)]
        if self._markup_ids.isdisjoint(cut):
            return cut
        return [t for char in text for t in self.tokenize(char, special=False, continues=True)]

    def tokenize(self, text: str, *, special: bool, continues: bool = False) -> list[int]:
        """Token ids of `text`, without BOS or EOS.

        Args:
            text: any text.
            special: whether the text of a control token becomes that token.
            continues: whether other text stands before it; else SentencePiece vocabularies put a space in front.
        """
        if continues and self._is_spm:
            head = self.tokenize("\n", special=False)
            ids = self.tokenize("\n" + text, special=special)
            if ids[: len(head)] == head:
                return ids[len(head) :]
        raw = text.encode("utf-8", "surrogatepass")
        room = len(raw) + 8
        buffer = (lib.llama_token * room)()
        n = int(lib.llama_tokenize(self._vocab, raw, len(raw), buffer, room, False, special))
        if n < 0:
            buffer = (lib.llama_token * -n)()
            n = int(lib.llama_tokenize(self._vocab, raw, len(raw), buffer, -n, False, special))
        return list(buffer[:n])

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Bytes that `token` stands for; control tokens are empty unless `special`."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            n = int(lib.llama_token_to_piece(self._vocab, token, buffer, room, 0, special))
            if n >= 0:
                return buffer.raw[:n]
            room = -n

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of `tokens`; bytes that are not valid UTF-8 become U+FFFD."""
        return b"".join(map(self.piece, tokens)).decode("utf-8", "replace")

    # -- chat

    @cached_property
    def template_source(self) -> str | None:
        """The chat template in the file, or None."""
        raw = lib.llama_model_chat_template(self.handle, None)
        return raw.decode("utf-8", "replace") if raw else None

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """The model's own chat template, or the built-in fallback: ChatML where its tokens exist, else plain text.

        Raises:
            ChatTemplateError: the model's template is too large or not valid.
        """
        source = self.template_source
        if source is None:
            source = CHATML if self.control_pattern.fullmatch("<|im_end|>") else PLAIN
        # llama.cpp names some BOS for every vocabulary; where it is an ordinary token, there is none.
        bos, eos = (
            self.token_text(token).decode("utf-8", "replace")
            if (token := self.special_ids[key]) in self.control_ids
            else ""
            for key in ("bos", "eos")
        )
        return ChatTemplate(source, bos=bos, eos=eos, where=self.path.name)

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the vocabulary asks for a BOS token in front."""
        return bool(lib.llama_vocab_get_add_bos(self._vocab)) and self.special_ids["bos"] in self.control_ids
