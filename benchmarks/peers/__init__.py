"""One module per implementation.

Each has ``PACKAGES`` (distributions whose versions are recorded) and ``prepare(query, inputs)``, which
returns the function to time: no arguments, float32 or float64 as the inputs are, and a finished answer that
numpy can read, in the order that `benchmarks.check.errors` expects. ``prepare`` raises NotImplementedError,
in words, for a query that the library does not offer. Whatever a user would do once (tensors, parameters,
compilation) happens in ``prepare``.
"""
