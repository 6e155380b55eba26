"""Speed and size beside the usual implementation: `python -m benchmarks`."""
