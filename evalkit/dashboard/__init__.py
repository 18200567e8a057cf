"""Production on one page: quality, cost, latency, caches, failures, reviews and alerts."""
