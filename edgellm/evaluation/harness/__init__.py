"""Published benchmarks: lm-eval's own tasks on a model in this process, and what its recipe says of them."""
