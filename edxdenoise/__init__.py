"""Denoised, quantified data sets from noisy EDX spectrum images.

The public names stand in ``__init__.pyi``. Each is imported when it is first used, so that
``edxdenoise --help`` does not wait for libraries it does not need.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
