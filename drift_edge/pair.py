"""ModelPair: the LLM and the sLM, and the proof that their tokenizers agree.

Eq. 15 adds logits of the two models token by token, so id w must mean the same token in both. A mismatch is an
error and never a slice.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from llama_cpp import llama_cpp as lib

from drift_edge.errors import TokenizerMismatchError
from drift_edge.llama.chat import ChatFormat
from drift_edge.llama.model import Model

_TYPE_BITS = 0b111111  # unknown, unused, normal, control, user-defined, byte
_PROBES = (
    "Hello, world! It's 3.14 o'clock.\n\n\tTabs  and   spaces",
    "naïve café — 你好世界 🙂 Ελληνικά русский עברית",
    "def f(x):\n    return x**2  # 1234567890\r\n",
)


class ModelPair:
    """Two models proven to share a tokenizer.

    Args:
        llm: the frozen LLM.
        slm: the small LM that is prompted with attributes. May be the very same model.

    Raises:
        TokenizerMismatchError: ids, texts, types or special ids differ; shows the first difference.
    """

    def __init__(self, llm: Model, slm: Model) -> None:
        self.llm, self.slm = llm, slm
        self.n_vocab = shared_vocabulary(llm, slm)
        self.llm_format = ChatFormat(llm)
        self.slm_format = self.llm_format if slm is llm else ChatFormat(slm)

    @classmethod
    def load(
        cls, llm: str | Path, slm: str | Path, *, gpu_layers: int | None = None, slm_gpu_layers: int | None = None
    ) -> ModelPair:
        """Load both models; where both are the same file, it is loaded once.

        Args:
            llm: GGUF file of the LLM.
            slm: GGUF file of the small LM.
            gpu_layers: layers of the LLM to offload; None means all, where the build of llama.cpp can.
            slm_gpu_layers: the same for the sLM.

        Raises:
            ModelFileError: a file is missing, damaged or refused by llama.cpp.
            TokenizerMismatchError: the two do not share a tokenizer.
        """
        llm_model = Model(llm, gpu_layers=gpu_layers)
        slm_model = llm_model
        try:
            if not same_file(llm, slm):
                slm_model = Model(slm, gpu_layers=slm_gpu_layers)
            return cls(llm_model, slm_model)
        except BaseException:
            slm_model.close()
            llm_model.close()
            raise

    def close(self) -> None:
        """Free both models."""
        self.slm.close()
        self.llm.close()

    def __enter__(self) -> ModelPair:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def real_tokens(model: Model) -> int:
    """Size of the vocabulary without its padded tail: ids of the type `unused`, or named `[PAD123]` by their number."""

    def padding(token: int) -> bool:
        unused = model.token_attr(token) & lib.LLAMA_TOKEN_ATTR_UNUSED
        return bool(unused) or model.token_text(token) == b"[PAD%d]" % token

    n = model.n_vocab
    while n and padding(n - 1):
        n -= 1
    return n


def shared_vocabulary(llm: Model, slm: Model) -> int:
    """Prove that two vocabularies agree, and return how many ids they share; ids past it are padding in both.

    Raises:
        TokenizerMismatchError: shows the first difference.
    """
    n = real_tokens(llm)
    if slm is llm:
        return n

    def refuse(difference: str) -> TokenizerMismatchError:
        return TokenizerMismatchError(
            f"the LLM {llm.path.name} and the sLM {slm.path.name} do not share a tokenizer: {difference}. "
            "Drift adds their logits id by id, so take both from one family (such as Llama-3.1-8B with Llama-3.2-1B)"
        )

    for key in ("tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.merges"):
        found, other = llm.header.metadata.get(key), slm.header.metadata.get(key)
        if found != other:
            raise refuse(f"{key} is {found!r} in the LLM and {other!r} in the sLM")
    m = real_tokens(slm)
    for token in range(min(n, m)):
        ours, theirs = llm.token_text(token), slm.token_text(token)
        if ours != theirs:
            raise refuse(f"token {token} is {_show(ours)} in the LLM and {_show(theirs)} in the sLM")
        a, b = llm.token_attr(token) & _TYPE_BITS, slm.token_attr(token) & _TYPE_BITS
        if a != b:
            raise refuse(f"token {token} {_show(ours)} has type bits {a:#x} in the LLM and {b:#x} in the sLM")
    if n != m:
        longer, which = (llm, "LLM") if n > m else (slm, "sLM")
        token = min(n, m)
        raise refuse(
            f"only the {which} has token {token}, {_show(longer.token_text(token))} ({n:,} against {m:,} tokens)"
        )
    for name, token in llm.special_ids.items():
        if name in ("bos", "eos", "eot") and slm.special_ids[name] != token:
            raise refuse(f"the {name} id is {token} in the LLM and {slm.special_ids[name]} in the sLM")
    for probe in _PROBES:  # merges and pre-tokenizer rules show only in use
        if llm.tokenize(probe, special=False) != slm.tokenize(probe, special=False):
            raise refuse(f"they split {probe!r} differently")
    return n


def same_file(a: str | Path, b: str | Path) -> bool:
    """Whether both models are one file."""
    try:
        return Path(a).samefile(b)
    except (OSError, TypeError, ValueError):  # not there, or no path at all: whoever opens it says so
        return False


def _show(text: bytes) -> str:
    return repr(text.decode("utf-8", "replace"))
