"""How kernels are compiled: numba's options, and machine code on disk that no change of the sources outlives."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OPTIONS: dict[str, Any] = {"fastmath": True, "error_model": "numpy", "nogil": True}


@cache
def sources_digest() -> str:
    """Return the SHA-256 of every source file of this package, by name and content."""
    digest = hashlib.sha256()
    sources = (entry for entry in files("motionbox.flow.cpu").iterdir() if entry.name.endswith(".py"))
    for entry in sorted(sources, key=lambda entry: entry.name):
        content = entry.read_bytes()
        digest.update(f"{entry.name} {len(content)} ".encode() + content)
    return digest.hexdigest()


class _KernelCache(FunctionCache):
    """numba's disk cache, which by itself watches the file of the kernel only, not those of what it calls."""

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        key = super()._index_key(sig, codegen)  # type: ignore[no-untyped-call]
        return (*key, sources_digest())


def part(function: _Function) -> _Function:
    """Compile a function that only kernels call, into each of its callers.

    A call would find the part's own machine code in the process that compiled it, and the kernel's copy in a process
    that read the kernel from disk; the two round differently.
    """
    return cast(_Function, numba.njit(**_OPTIONS, forceinline=True)(function))


def kernel(function: _Function) -> _Function:
    """Compile a function that Python calls; keep the machine code on disk where numba finds a writable folder."""
    compiled: Any = numba.njit(**_OPTIONS)(function)
    # A RuntimeError: neither the package, nor NUMBA_CACHE_DIR, nor the user's cache folder is writable.
    with contextlib.suppress(RuntimeError):
        compiled._cache = _KernelCache(function)  # type: ignore[no-untyped-call]  # what `cache=True` does
    return cast(_Function, compiled)
