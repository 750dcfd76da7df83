"""How far a result can be trusted: held-out counts, models compared, structure that was dropped."""

from edxdenoise.validation.comparison import compare
from edxdenoise.validation.residuals import residual_audit

__all__ = ["compare", "residual_audit"]
