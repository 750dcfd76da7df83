"""The report of a result: one page, pictures and tables."""

from edxdenoise.report.comparison import write_comparison
from edxdenoise.report.write import write_report

__all__ = ["write_comparison", "write_report"]
