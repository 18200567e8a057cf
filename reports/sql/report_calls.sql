-- Latency and cost of each side. A call stands beside each of its metrics: it is counted once.
WITH calls_once AS (
    SELECT
        meeting, side, golden_set, case_id, case_hash, trial,
        any_value(latency_ms) AS latency_ms, any_value(ttft_ms) AS ttft_ms,
        any_value(cost_usd) AS cost_usd
    FROM side_rows
    GROUP BY ALL
)
SELECT
    meeting, side, any_value(golden_set) AS golden_set,
    count(*) AS n_calls,
    quantile_cont(latency_ms, 0.5) AS p50_latency_ms,
    quantile_cont(latency_ms, 0.95) AS p95_latency_ms,
    max(latency_ms) AS max_latency_ms,
    quantile_cont(ttft_ms, 0.95) AS p95_ttft_ms,
    avg(cost_usd) AS mean_cost_usd,
    sum(cost_usd) AS total_cost_usd,
    count(*) - count(cost_usd) AS n_unpriced
FROM calls_once
GROUP BY meeting, side
ORDER BY meeting, side
