"""Peers to measure against and compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import llama_cpp
from llama_cpp import llama_cpp as lib

from drift_edge.llama.library import has_amx


def plain_llama(path: Path, *, n_ctx: int = 1024, **settings: Any) -> Any:
    """A `llama_cpp.Llama` of `path` on one thread, as most people use llama-cpp-python.

    On a build with AMX, which may crash (see `has_amx`), it is kept off as drift-edge keeps it off for itself: the
    class has no setting for it, so the defaults that it asks for are changed. `settings` are the class's own.
    """
    params = lib.llama_model_default_params()
    params.use_extra_bufts = params.use_extra_bufts and not has_amx()
    with mock.patch.object(lib, "llama_model_default_params", return_value=params):
        return llama_cpp.Llama(str(path), n_ctx=n_ctx, n_threads=1, n_threads_batch=1, verbose=False, **settings)
