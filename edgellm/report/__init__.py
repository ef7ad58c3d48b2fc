"""Reports to look at: benchmarks and evaluations as one HTML file with charts, as SVG or as a PNG picture."""
