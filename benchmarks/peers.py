"""Peers to measure against and compare with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import llama_cpp
from llama_cpp import llama_cpp as lib

from drift_edge.llama.library import has_amx


@contextmanager
def without_amx() -> Iterator[None]:
    """While this lasts, `llama_cpp.Llama` loads models without AMX, which may crash (see `has_amx`).

    The class has no setting for it, so the defaults that it asks for are changed.
    """
    params = lib.llama_model_default_params()
    params.use_extra_bufts = params.use_extra_bufts and not has_amx()
    with mock.patch.object(lib, "llama_model_default_params", return_value=params):
        yield


def plain_llama(path: Path, *, n_ctx: int = 1024, threads: int = 1, **settings: Any) -> Any:
    """A `llama_cpp.Llama` of `path`, as most people use llama-cpp-python; `settings` are the class's."""
    with without_amx():
        return llama_cpp.Llama(
            str(path), n_ctx=n_ctx, n_threads=threads, n_threads_batch=threads, verbose=False, **settings
        )
