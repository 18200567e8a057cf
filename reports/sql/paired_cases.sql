-- Which case meets which: one row per comparison and case, each side's trials averaged first.
-- The case is what was drawn, never the trial. Cases on one side only stay, with no mean on
-- the other: who reads this counts them. A candidate's trials beyond the baseline's are left
-- out: a baseline that was lucky once on each case would look like a small drop on all.
--
-- score_rows: every score of both sides. plan: which rows are which side of which comparison.
WITH r AS (
    SELECT *, coalesce(trial, 0) AS attempt
    FROM score_rows
    JOIN plan USING (source, golden_set, metric, model, prompt_name, prompt_version)
),
baseline_trials AS (
    SELECT comparison, max(n) AS most
    FROM (SELECT comparison, case_id, case_hash, count(*) AS n
          FROM r WHERE side = 'baseline' GROUP BY ALL)
    GROUP BY ALL
),
candidate_trials AS (
    SELECT comparison, attempt,
        row_number() OVER (PARTITION BY comparison ORDER BY attempt) AS nth
    FROM (SELECT DISTINCT comparison, attempt FROM r WHERE side = 'candidate')
)
SELECT
    comparison,
    case_id,
    CASE WHEN by_hash THEN case_hash ELSE '' END AS case_hash,
    avg(score) FILTER (side = 'baseline') AS baseline,
    avg(score) FILTER (side = 'candidate') AS candidate,
    var_samp(score) FILTER (side = 'baseline') AS baseline_var,
    var_samp(score) FILTER (side = 'candidate') AS candidate_var,
    count(score) FILTER (side = 'baseline') AS baseline_trials,
    count(score) FILTER (side = 'candidate') AS candidate_trials,
    count(*) FILTER (side = 'baseline') AS baseline_rows,
    count(*) FILTER (side = 'candidate') AS candidate_rows,
    count(*) FILTER (outcome = 'excluded') AS excluded_rows,
    min(outcome) FILTER (side = 'baseline' AND score IS NULL) AS baseline_outcome,
    min(outcome) FILTER (side = 'candidate' AND score IS NULL) AS candidate_outcome,
    min(cluster) AS cluster
FROM r
LEFT JOIN baseline_trials USING (comparison)
LEFT JOIN candidate_trials USING (comparison, attempt)
WHERE side = 'baseline' OR most IS NULL OR nth <= most
GROUP BY ALL
ORDER BY comparison, case_id, case_hash
