"""Scan of the residuals of a model for structure that it dropped."""

from edxdenoise.audit.finds import Audit, audit, residual_audit
from edxdenoise.audit.scan import BLOCK

__all__ = ["BLOCK", "Audit", "audit", "residual_audit"]
