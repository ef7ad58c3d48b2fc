"""Charts from plain data, as SVG: bars with intervals, and points or lines over numbers."""
