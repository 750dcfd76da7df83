"""Score maps freed of the noise that is known: every pixel averaged with those like it nearby."""

from edxdenoise.shrinkage.shrink import shrink, shrink_report

__all__ = ["shrink", "shrink_report"]
