-- What kept scores from being made, or made them 0 without a look at the answer.
-- A failed call is counted once for its case and trial; a judge or check for each score.
SELECT
    side, golden_set, outcome, coalesce(error_kind, '') AS error_kind,
    CASE WHEN outcome IN ('judge_error', 'check_error') THEN metric ELSE '' END AS metric,
    count(DISTINCT (case_id, case_hash, trial)) AS n
FROM side_rows
WHERE outcome <> 'scored'
GROUP BY ALL
ORDER BY golden_set, outcome, error_kind, metric, side
