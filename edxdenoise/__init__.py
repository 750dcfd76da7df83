"""Denoised, quantified data sets from noisy EDX spectrum images.

The public names stand in ``__init__.pyi``. Each is imported when it is first used, so that
``edxdenoise --help`` does not wait for libraries it does not need.
"""

import os

import lazy_loader

# Threads of compiled loops that wait for each other must not spin: where the processors are busy
# with something else, that made smoothing ten times slower. It is read when OpenMP is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    found = _load(name)
    if name in __all__ and name != "__version__":
        # Whoever has a Dataset of ours has ``ds.edx``.
        import edxdenoise.accessor  # noqa: F401
    return found
