-- Means of every metric, for runs that are shown without a comparison. Trials first, then cases.
WITH per_case AS (
    SELECT
        run_id, golden_set, model, prompt_name, prompt_version, metric, max(tier) AS tier,
        case_id, avg(score) AS score, avg(passed::INT) AS passed,
        count(*) - count(score) AS n_missing
    FROM scores
    GROUP BY ALL
)
SELECT
    run_id, golden_set, model, prompt_name, prompt_version, metric, max(tier) AS tier,
    count(score) AS n, avg(score) AS mean, avg(passed) AS pass_share,
    sum(n_missing)::BIGINT AS n_missing
FROM per_case
GROUP BY ALL
ORDER BY golden_set, model, prompt_name, prompt_version, tier, metric, run_id
