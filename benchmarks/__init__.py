"""Benchmarks: every figure is a ratio against a peer or a limit, measured in one run. `drift-edge bench`."""
