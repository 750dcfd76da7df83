"""Pictures and pages that show why."""

from edxdenoise.report.comparison import write_comparison
from edxdenoise.report.quantified import write_quantification
from edxdenoise.report.write import write_report

__all__ = ["write_comparison", "write_quantification", "write_report"]
