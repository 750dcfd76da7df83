"""Pictures and pages that show why."""
