"""Models of one spectrum image compared without knowing its truth."""

from edxdenoise.comparison.job import compare_file
from edxdenoise.comparison.judge import compare
from edxdenoise.comparison.models import DEFAULT_MODELS, Model, parse_model
from edxdenoise.comparison.words import supported, verdict

__all__ = [
    "DEFAULT_MODELS",
    "Model",
    "compare",
    "compare_file",
    "parse_model",
    "supported",
    "verdict",
]
