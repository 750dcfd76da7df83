"""What a model leaves of the counts: a scan of the residuals for structure that it dropped."""

from edxdenoise.audit.finds import Audit, audit, residual_audit

__all__ = ["Audit", "audit", "residual_audit"]
