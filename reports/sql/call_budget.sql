-- Latency and cost of each side, per golden set and the two pairs that meet.
-- A call's figures stand beside each of its metrics: the rows of the first that has any are enough.
SELECT
    plan.meeting,
    plan.side,
    count(*) AS calls,
    count(r.latency_ms) AS timed,
    avg(r.latency_ms) AS mean_latency_ms,
    quantile_cont(r.latency_ms, 0.95) AS p95_latency_ms,
    count(r.cost_usd) AS priced,
    avg(r.cost_usd) AS mean_cost_usd,
    quantile_cont(r.cost_usd, 0.95) AS p95_cost_usd,
    sum(r.cost_usd) AS total_cost_usd
FROM score_rows AS r
JOIN plan USING (source, golden_set, metric, model, prompt_name, prompt_version)
WHERE plan.first_of_meeting
GROUP BY plan.meeting, plan.side
ORDER BY plan.meeting, plan.side
