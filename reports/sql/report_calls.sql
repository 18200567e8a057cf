-- Latency, cost, tokens and cache of each side, against the feature's latency budget.
-- A call stands beside each of its metrics: it is counted once. limits: golden set to budget.
WITH calls_once AS (
    SELECT
        meeting, side, golden_set, case_id, case_hash, trial,
        any_value(latency_ms) AS latency_ms, any_value(ttft_ms) AS ttft_ms,
        any_value(cost_usd) AS cost_usd, any_value(trace_id) AS trace_id
    FROM side_rows
    GROUP BY ALL
)
SELECT
    meeting, side, any_value(golden_set) AS golden_set,
    count(*) AS n_calls,
    quantile_cont(latency_ms, 0.5) AS p50_latency_ms,
    quantile_cont(latency_ms, 0.95) AS p95_latency_ms,
    max(latency_ms) AS max_latency_ms,
    any_value(limit_ms) AS limit_ms,
    count(*) FILTER (latency_ms > limit_ms) AS n_late,
    quantile_cont(ttft_ms, 0.95) AS p95_ttft_ms,
    avg(o.cost_usd) AS mean_cost_usd,
    sum(o.cost_usd) AS total_cost_usd,
    count(*) - count(o.cost_usd) AS n_unpriced,
    avg(c.prompt_tokens) AS mean_prompt_tokens,
    avg(c.completion_tokens) AS mean_completion_tokens,
    sum(c.cached_prompt_tokens) / nullif(sum(c.prompt_tokens), 0) AS cached_share,
    avg(c.cache_hit::INT) AS cache_share,
    avg(c.retries) AS mean_retries
FROM calls_once AS o
LEFT JOIN limits USING (golden_set)
LEFT JOIN run_calls AS c USING (trace_id)
GROUP BY meeting, side
ORDER BY meeting, side
