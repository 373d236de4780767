"""Context: n sequences in one llama.cpp context, with a memory of what each sequence holds.

A sequence's tokens are never computed twice: a new prompt keeps the longest common prefix with what is cached, rolls
the rest back, and extends. One call of `extend` is one `llama_decode`, however many sequences take part.

A call may be interrupted anywhere (`KeyboardInterrupt`): the next one brings llama.cpp's memory and ours together.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from drift_edge.errors import ClosedError, ContextOverflowError, DecodeError, ModelError, UsageError
from drift_edge.kernel import AbortFlag
from drift_edge.llama.batch import Batch, Part
from drift_edge.llama.library import default_threads
from drift_edge.llama.model import Model
from drift_edge.llama.worker import Worker

Logits = NDArray[np.float32]

CACHE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "bf16": 30}
FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
MAX_CELLS = 1 << 30  # tokens of all sequences together; llama.cpp counts them in 32 bits
MAX_THREADS = 512
_ABORTED = 2  # llama_decode's result when the abort callback said so


class Aborted(Exception):  # noqa: N818 (control flow inside the engine, not an error of the user's)
    """Decoding stopped because the abort flag was set; the caches are as before the call, less nothing kept."""


@dataclass(slots=True)
class Counters:
    """What a context has computed since it was made.

    Attributes:
        decodes: calls of `llama_decode` for generated tokens.
        prefill_decodes: calls of `llama_decode` for prompts.
        rows: rows of logits asked for.
        prefilled: prompt tokens computed, over all sequences.
        reused: prompt tokens found in the caches, over all sequences.
    """

    decodes: int = 0
    prefill_decodes: int = 0
    rows: int = 0
    prefilled: int = 0
    reused: int = 0


class Context:
    """`n_seq` sequences of up to `n_ctx` tokens each.

    Args:
        model: stays in memory as long as the context, even if it is closed before.
        n_seq: number of sequences; fixed for life.
        n_ctx: tokens a sequence can hold.
        n_batch: tokens that go into one decode of a prompt.
        threads: None chooses by the model's size.
        flash_attn: `auto`, `on` or `off`.
        cache_type: type of the KV cache: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 or q4_0.
        n_outputs: rows of logits that one decode may ask for; None is one a sequence. Each costs 4 bytes an id.

    Attributes:
        queued: whether `extend` hands its decode to a thread of the context's own and returns at once, as a GPU does.
            Whatever is asked of the context next waits for it. May be changed at any time.

    Raises:
        UsageError: a setting is unknown or out of range.
        ModelError: llama.cpp cannot make the context (usually memory).
    """

    def __init__(
        self,
        model: Model,
        *,
        n_seq: int,
        n_ctx: int,
        n_batch: int = 512,
        threads: int | None = None,
        flash_attn: str = "auto",
        cache_type: str = "f16",
        n_outputs: int | None = None,
    ) -> None:
        if flash_attn not in FLASH_ATTN:
            raise UsageError(f"flash_attn: expected one of {', '.join(FLASH_ATTN)}, got {flash_attn!r}")
        if cache_type not in CACHE_TYPES:
            raise UsageError(f"cache_type: expected one of {', '.join(CACHE_TYPES)}, got {cache_type!r}")
        if flash_attn == "off" and cache_type.startswith("q"):
            raise UsageError(
                f"cache_type: {cache_type} needs flash attention, which is off; take f16, f32 or bf16, or let it be on"
            )
        most = int(lib.llama_max_parallel_sequences())
        if not 1 <= n_seq <= most:
            raise UsageError(f"n_seq: expected 1 to {most} sequences, got {n_seq}")
        self.model, self.n_seq, self.n_ctx = model, n_seq, n_ctx
        self.n_outputs = max(n_outputs or 0, n_seq)
        self.n_batch = max(n_batch, self.n_outputs)
        if not 1 <= n_ctx <= MAX_CELLS // n_seq:
            raise UsageError(f"n_ctx: expected 1 to {MAX_CELLS // n_seq:,} tokens for {n_seq} sequences, got {n_ctx:,}")
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise UsageError(f"threads: expected 1 to {MAX_THREADS}, got {threads!r}")
        self.threads = threads or default_threads(model.n_bytes)
        params = lib.llama_context_default_params()
        params.n_ctx = n_ctx * n_seq
        params.n_batch = params.n_ubatch = self.n_batch
        params.n_seq_max = n_seq
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = FLASH_ATTN[flash_attn]
        params.type_k = params.type_v = CACHE_TYPES[cache_type]
        # The prompts differ from the first token on: split caches attend to their own cells alone, a shared
        # one would mask all the others' (measured: 131-162 ms against 185 for eight rows of a 1B shape).
        params.kv_unified = n_seq == 1
        params.swa_full = True  # a sliding window forgets, and what is forgotten cannot be rolled back to
        params.no_perf = True
        if hasattr(params, "n_outputs_max"):
            params.n_outputs_max = self.n_outputs  # else room for n_batch rows of logits would be reserved
        self._handle: int | None = lib.llama_init_from_model(model.hold(), params)
        if not self._handle:
            model.release()
            raise ModelError(
                f"{model.path}: llama.cpp cannot make a context of {n_seq} x {n_ctx:,} tokens; try a smaller "
                "--ctx-size, fewer attributes (--active) or --cache-type q8_0"
            )
        self.queued = False
        self._worker: Worker | None = None
        self._failure: BaseException | None = None  # of what was handed over
        self._counters = Counters()
        self._tokens: list[list[int]] = [[] for _ in range(n_seq)]
        self._differs = False  # llama.cpp's memory may hold more than _tokens
        self._abort: AbortFlag | None = None
        self._n_rows = 0
        self._view: Logits = np.empty((0, model.n_vocab), np.float32)
        self._address = 0
        self._batch = Batch(self.n_batch)

    # -- life

    @property
    def handle(self) -> int:
        """llama.cpp's pointer.

        Raises:
            ClosedError: the context has been closed.
        """
        if self._handle is None:
            raise ClosedError("the context has been closed")
        return self._handle

    @property
    def _memory(self) -> object:
        return lib.llama_get_memory(self.handle)

    def close(self) -> None:
        """Free the caches and buffers; views of logits are dead after this."""
        self.queued = False
        if self._worker is not None:
            self._worker.close()
        handle, self._handle = self._handle, None
        if handle:
            lib.llama_free(handle)
            self.model.release()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # -- cancelling

    def set_abort(self, flag: AbortFlag | None) -> None:
        """Watch `flag` during decoding. The callback is a C function of the kernel's: no Python runs in it."""
        self._wait()
        handle, callback = self.handle, lib.ggml_abort_callback(0 if flag is None else flag.callback)
        data = None if flag is None else flag.data
        # Each flag is alive while llama.cpp holds its address: no interrupt comes between these two statements.
        before, self._abort = self._abort, flag
        lib.llama_set_abort_callback(handle, callback, data)
        del before

    # -- what is under way

    def _wait(self) -> None:
        if self._worker is not None:
            self._worker.wait()

    def _settle(self) -> None:
        """Wait for what was handed over, and mend what an interrupted call has left."""
        self._wait()
        if self._differs:
            self._cut(range(self.n_seq))

    def _cut(self, seqs: Iterable[int]) -> None:
        """Take out of llama.cpp's memory what `tokens` does not hold."""
        self._differs = True
        for seq in seqs:
            if not lib.llama_memory_seq_rm(self._memory, seq, len(self._tokens[seq]), -1):
                self._tokens[seq].clear()  # a model that cannot roll back
                lib.llama_memory_seq_rm(self._memory, seq, -1, -1)
        self._differs = False

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    @property
    def counters(self) -> Counters:
        """What was computed so far."""
        self._wait()
        return self._counters

    # -- caches

    @property
    def tokens(self) -> list[list[int]]:
        """Token ids that each sequence holds; not to be changed."""
        self._settle()
        return self._tokens

    def truncate(self, seq: int, n: int) -> None:
        """Keep the first `n` tokens of sequence `seq`; the whole sequence is dropped where that cannot be done."""
        self._settle()
        if n < len(self._tokens[seq]):
            self._differs = True
            del self._tokens[seq][n:]
            self._cut([seq])

    def shared_prefix(self, seq: int, tokens: Sequence[int]) -> int:
        """How many leading tokens of `tokens` sequence `seq` holds already."""
        n = 0
        for cached, wanted in zip(self.tokens[seq], tokens, strict=False):
            if cached != wanted:
                break
            n += 1
        return n

    def prefill(self, prompts: Mapping[int, Sequence[int]]) -> None:
        """Bring sequences to hold just the given prompts; the logits after each are then at hand.

        All prompts go through together, up to `n_batch` tokens a decode. The last token of every prompt is kept back
        for one common decode, so that `logits()` has one row a prompt, in the order of `prompts`.

        Args:
            prompts: token ids by sequence; none may be empty.

        Raises:
            ContextOverflowError: a prompt is longer than `n_ctx`.
            Aborted: the abort flag was set; what was computed before stays cached.
            DecodeError: llama.cpp failed.
        """
        self._settle()
        self._failure = None
        todo: dict[int, list[int]] = {}
        for seq, prompt in prompts.items():
            if not prompt:
                raise UsageError("a prompt must have at least one token")
            if len(prompt) > self.n_ctx:
                raise ContextOverflowError(
                    f"the prompt has {len(prompt):,} tokens, the context holds {self.n_ctx:,}; "
                    "shorten it or raise --ctx-size"
                )
            keep = min(self.shared_prefix(seq, prompt), len(prompt) - 1)
            self.truncate(seq, keep)
            keep = len(self._tokens[seq])  # a model that cannot roll back has dropped everything
            self._counters.reused += keep
            todo[seq] = list(prompt[keep:])
        while any(len(rest) > 1 for rest in todo.values()):
            room = self.n_batch
            parts: list[Part] = []
            waiting = [seq for seq, rest in todo.items() if len(rest) > 1]
            for i, seq in enumerate(waiting):
                n = min(len(todo[seq]) - 1, max(1, room // (len(waiting) - i)))
                if n > room:
                    break
                parts.append((seq, todo[seq][:n]))
                room -= n
            self._decode(parts, [0] * len(parts))
            self._counters.prefill_decodes += 1
            self._counters.prefilled += self.n_batch - room
            for seq, tokens in parts:
                del todo[seq][: len(tokens)]
        self._decode(list(todo.items()), [1] * len(todo))
        self._counters.prefill_decodes += 1
        self._counters.prefilled += len(todo)

    def extend(self, tokens: Sequence[int], seqs: Sequence[int]) -> None:
        """Append one token to each of `seqs`, in one `llama_decode`; `logits()` has their rows in this order.

        Where the context is `queued`, or on a GPU, the decode is only begun: ask for `logits()` as late as possible.

        Raises:
            Aborted: the abort flag was set; nothing was appended. Where the context is queued, `logits()` raises it.
            DecodeError: llama.cpp failed, or a sequence is full. The same.
        """
        self._settle()
        self._raise_failure()
        parts = [(seq, (token,)) for seq, token in zip(seqs, tokens, strict=True)]
        if not self.queued:
            self._append(parts)
            return
        if self._worker is None:
            self._worker = Worker()
        self._worker.hand_over(partial(self._append_queued, parts))

    def _append(self, parts: Sequence[Part]) -> None:
        self._decode(parts, [1] * len(parts))
        self._counters.decodes += 1

    def _append_queued(self, parts: Sequence[Part]) -> None:
        try:
            self._append(parts)
        except BaseException as failure:  # told when something is asked
            self._failure = failure

    def feed(self, parts: Sequence[Part], outputs: Sequence[int] | None = None) -> None:
        """Append several tokens to each of several sequences, in one `llama_decode`.

        Args:
            parts: (sequence, token ids), each sequence once.
            outputs: of each part, how many of its last tokens get a row of logits; None is all of them. `logits()`
                has the rows in the order of the parts, and in a part in the order of its tokens.

        Raises:
            UsageError: over `n_batch` tokens or over `n_outputs` rows at once.
            Aborted: the abort flag was set; nothing was appended.
            DecodeError: llama.cpp failed, or a sequence is full.
        """
        wanted = [len(tokens) for _, tokens in parts] if outputs is None else list(outputs)
        n, rows = sum(len(tokens) for _, tokens in parts), sum(wanted)
        if n > self.n_batch or rows > self.n_outputs:
            raise UsageError(
                f"one decode takes {self.n_batch} tokens and gives {self.n_outputs} rows; asked for {n} and {rows}"
            )
        self._settle()
        self._raise_failure()
        self._decode(parts, wanted)
        self._counters.decodes += 1

    def _decode(self, parts: Sequence[Part], outputs: Sequence[int]) -> None:
        """Append `parts`, the last `outputs` tokens of each with a row of logits."""
        self._n_rows = 0
        if self._abort is not None and self._abort.is_set():
            raise Aborted
        held = self._tokens
        n = self._batch.fill(parts, [len(held[seq]) for seq, _ in parts], outputs)
        self._differs = True
        result = lib.llama_decode(self.handle, self._batch.struct)
        if result != 0:
            self._cut([seq for seq, _ in parts])  # whatever part of the batch was processed
            if result == _ABORTED:
                raise Aborted
            reason = {1: "no room in the KV cache", -1: "an invalid batch"}.get(result, f"code {result}")
            raise DecodeError(f"llama.cpp could not decode {n} tokens: {reason}")
        for seq, tokens in parts:
            held[seq] += tokens
        self._differs = False
        self._n_rows = sum(outputs)
        self._counters.rows += self._n_rows

    # -- results

    def logits(self) -> Logits:
        """Rows of the last `prefill` or `extend`, in the order of its sequences.

        Returns:
            float32 (rows, n_vocab): a view of llama.cpp's own buffer, valid until the next decode. Waits for the GPU.

        Raises:
            Aborted, DecodeError: a queued decode failed.
            DecodeError: there was no decode since the last failure.
        """
        self._wait()
        self._raise_failure()
        pointer = lib.llama_get_logits(self.handle)
        address = ctypes.cast(pointer, ctypes.c_void_p).value if self._n_rows else None
        if not address:
            raise DecodeError("no logits: nothing has been decoded yet")
        if address != self._address or self._view.shape[0] != self._n_rows:
            self._view = np.ctypeslib.as_array(pointer, (self._n_rows, self.model.n_vocab))
            self._address = address
        return self._view
