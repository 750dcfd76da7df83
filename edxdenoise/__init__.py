"""Denoised, quantified data sets from noisy EDX spectrum images.

The public names stand in ``__init__.pyi``. Each is imported when it is first used, so that
``edxdenoise --help`` does not wait for libraries it does not need.
"""

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    found = _load(name)
    if name in __all__ and name != "__version__":
        # Whoever has a Dataset of ours has ``ds.edx``.
        import edxdenoise.accessor  # noqa: F401
    return found
