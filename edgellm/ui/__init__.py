"""What people see: text and JSON output, progress, the live line. The only place that knows rich."""
