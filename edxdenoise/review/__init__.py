"""The review of a denoised file: a person overrules which components are kept."""

from edxdenoise.review.state import Review

__all__ = ["Review"]
