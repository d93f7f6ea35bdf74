"""What `report` does: runs, labels and a catalogue in; one page of evidence, and the files behind it, out."""

from truemorph.workflow.reporting.options import ReportOptions
from truemorph.workflow.reporting.writing import make_report

__all__ = ["ReportOptions", "make_report"]
