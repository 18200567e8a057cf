-- Which case meets which: one row per comparison and case, each side's trials averaged first.
-- The case is what was drawn, never the trial. Cases on one side only stay, with no mean on
-- the other: who reads this counts them.
--
-- score_rows: every score of both sides. plan: which rows are which side of which comparison.
SELECT
    plan.comparison,
    r.case_id,
    CASE WHEN plan.by_hash THEN r.case_hash ELSE '' END AS case_hash,
    avg(r.score) FILTER (plan.side = 'baseline') AS baseline,
    avg(r.score) FILTER (plan.side = 'candidate') AS candidate,
    var_samp(r.score) FILTER (plan.side = 'baseline') AS baseline_var,
    var_samp(r.score) FILTER (plan.side = 'candidate') AS candidate_var,
    count(r.score) FILTER (plan.side = 'baseline') AS baseline_trials,
    count(r.score) FILTER (plan.side = 'candidate') AS candidate_trials,
    count(*) FILTER (plan.side = 'baseline') AS baseline_rows,
    count(*) FILTER (plan.side = 'candidate') AS candidate_rows,
    count(*) FILTER (r.outcome = 'excluded') AS excluded_rows,
    min(r.outcome) FILTER (plan.side = 'baseline' AND r.score IS NULL) AS baseline_outcome,
    min(r.outcome) FILTER (plan.side = 'candidate' AND r.score IS NULL) AS candidate_outcome,
    min(r.cluster) AS cluster
FROM score_rows AS r
JOIN plan USING (source, golden_set, metric, model, prompt_name, prompt_version)
GROUP BY ALL
ORDER BY plan.comparison, r.case_id, case_hash
