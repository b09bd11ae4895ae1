"""The edges by which latencies are counted, the same at the model server and at Envoy, so that they can be compared."""

LATENCY_MS = (
    *(0.5, 1, 2, 3, 4, 5, 7.5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 250, 300, 400, 500, 750),
    *(1000, 1500, 2000, 3000, 5000, 10000, 30000),
)
"""Bucket edges of the latency histograms; Envoy's own are too far apart to compare two revisions by."""
