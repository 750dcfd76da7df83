"""Score maps freed of the noise that is known, by a mixture of estimators."""

from edxdenoise.components.shrink import shrink

__all__ = ["shrink"]
