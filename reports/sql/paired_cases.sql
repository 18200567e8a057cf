-- Which case meets which: one row per comparison and case, each side's trials averaged first.
-- The case is what was drawn, never the trial. Cases on one side only stay, with no mean on
-- the other: who reads this counts them.
--
-- score_rows: every score of both sides. plan: which rows are which side of which comparison.
WITH sides AS (
    SELECT
        comparison,
        case_id,
        CASE WHEN by_hash THEN case_hash ELSE '' END AS case_hash,
        side = 'baseline' AS is_baseline,
        CASE WHEN is_baseline THEN score END AS baseline_score,
        CASE WHEN NOT is_baseline THEN score END AS candidate_score,
        CASE WHEN score IS NULL THEN outcome END AS missing,
        outcome = 'excluded' AS is_excluded,
        cluster
    FROM score_rows
    JOIN plan USING (source, golden_set, metric, model, prompt_name, prompt_version)
)
SELECT
    comparison,
    case_id,
    case_hash,
    avg(baseline_score) AS baseline,
    avg(candidate_score) AS candidate,
    var_samp(baseline_score) AS baseline_var,
    var_samp(candidate_score) AS candidate_var,
    count(baseline_score) AS baseline_trials,
    count(candidate_score) AS candidate_trials,
    sum(is_baseline::INT) AS baseline_rows,
    sum((NOT is_baseline)::INT) AS candidate_rows,
    sum(is_excluded::INT) AS excluded_rows,
    min(CASE WHEN is_baseline THEN missing END) AS baseline_outcome,
    min(CASE WHEN NOT is_baseline THEN missing END) AS candidate_outcome,
    min(cluster) AS cluster
FROM sides
GROUP BY comparison, case_id, case_hash
ORDER BY comparison, case_id, case_hash
