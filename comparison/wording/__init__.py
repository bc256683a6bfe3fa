"""Every sentence of a comparison: plan, verdicts, recommendation, captions and warnings."""

from comparison.wording import captions, numbers, plans, reasons, recommendations, verdicts

__all__ = ["captions", "numbers", "plans", "reasons", "recommendations", "verdicts"]
