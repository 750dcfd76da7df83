"""Models of one spectrum image compared without knowing its truth."""

from edxdenoise.comparison.judge import compare
from edxdenoise.comparison.models import DEFAULT_MODELS, Model, parse_model

__all__ = ["DEFAULT_MODELS", "Model", "compare", "parse_model"]
