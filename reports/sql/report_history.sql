-- Mean and standard error of metrics over runs, the series that a report is about. Trials of a
-- case first; cases of one cluster are not independent (sums of residuals by cluster).
WITH per_case AS (
    SELECT
        p.run_id, p.golden_set, p.model, p.prompt_name, p.prompt_version, p.metric,
        p.case_id, p.case_hash,
        CASE WHEN min(p.cluster) IS NULL THEN hash(p.case_id, 1) ELSE hash(min(p.cluster)) END
            AS cluster,
        avg(p.score) AS score, max(p.scorer_version) AS scorer_version,
        any_value(p.golden_set_hash) AS golden_set_hash
    FROM past_scores AS p
    JOIN series USING (golden_set, model, prompt_name, metric)
    WHERE p.score IS NOT NULL AND coalesce(p.served_model = p.model, true)
    GROUP BY
        p.run_id, p.golden_set, p.model, p.prompt_name, p.prompt_version, p.metric,
        p.case_id, p.case_hash
),
residuals AS (
    SELECT
        *,
        score - avg(score) OVER (
            PARTITION BY run_id, golden_set, model, prompt_name, prompt_version, metric
        ) AS residual
    FROM per_case
),
per_cluster AS (
    SELECT
        run_id, golden_set, model, prompt_name, prompt_version, metric, cluster,
        count(*) AS n, sum(score) AS total, sum(residual) AS residual,
        max(scorer_version) AS scorer_version, any_value(golden_set_hash) AS golden_set_hash
    FROM residuals
    GROUP BY ALL
)
SELECT
    run_id, golden_set, model, prompt_name, prompt_version, metric,
    sum(n)::BIGINT AS n, count(*) AS n_clusters, sum(total) / sum(n) AS mean,
    sqrt(sum(residual * residual) * count(*) / nullif(count(*) - 1, 0)) / sum(n) AS se,
    max(scorer_version) AS scorer_version, any_value(golden_set_hash) AS golden_set_hash
FROM per_cluster
GROUP BY run_id, golden_set, model, prompt_name, prompt_version, metric
ORDER BY golden_set, metric, run_id, prompt_version
