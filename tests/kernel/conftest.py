"""Every numeric test runs on the numpy twin and on the C with each instruction set of this machine."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from drift_edge import kernel

_C = "drift_edge.kernel._kernel"

if path := os.environ.get("DRIFT_EDGE_TEST_KERNEL"):  # another build of the C, as sanitize.sh makes one
    spec = importlib.util.spec_from_file_location(_C, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    sys.modules[_C] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[_C])


@pytest.fixture
def unchosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The seam, before it has chosen; it forgets its choice again afterwards."""
    kernel._chosen.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    kernel._chosen.cache_clear()


def _implementations() -> list[str]:
    """ "numpy", and "c-" with each instruction set of this machine; "c", which then fails, if the C is not there."""
    if os.environ.get("DRIFT_EDGE_KERNEL") == "numpy":
        return ["numpy"]
    try:
        module = importlib.import_module(_C)
    except ImportError:
        return ["numpy", "c"]
    chosen, names = module.isa(), ["numpy"]
    for isa in ("avx512", "avx2", "baseline", "neon"):
        with contextlib.suppress(ValueError):
            module._use_isa(isa)
            names.append(f"c-{isa}")
    module._use_isa(chosen)
    return names


@pytest.fixture(params=_implementations())
def any_kernel(request: pytest.FixtureRequest, unchosen: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The seam on each implementation, the C once for each instruction set."""
    name, _, isa = request.param.partition("-")
    unchosen.setenv("DRIFT_EDGE_KERNEL", name)
    if name == "numpy":
        yield kernel
        return
    module = importlib.import_module(_C)
    chosen = module.isa()
    module._use_isa(isa)
    yield kernel
    module._use_isa(chosen)


@pytest.fixture
def c_kernel(unchosen: pytest.MonkeyPatch) -> ModuleType:
    """The seam on the C."""
    if os.environ.get("DRIFT_EDGE_KERNEL") == "numpy":
        pytest.skip("DRIFT_EDGE_KERNEL=numpy")
    unchosen.setenv("DRIFT_EDGE_KERNEL", "c")
    return kernel


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers, seeded; the seed is printed where a test fails."""
    seed = 20240607
    print(f"seed {seed} in {request.node.name}")
    return np.random.default_rng(seed)
