-- The cases of some comparisons, in the order of paired_cases.sql, each side's mean over no more
-- scored trials of a case than the other side has of it: the first by number.
--
-- score_rows, plan: as there. $uneven: the comparisons.
WITH sides AS (
    SELECT
        comparison,
        case_id,
        CASE WHEN by_hash THEN case_hash ELSE '' END AS case_hash,
        side = 'baseline' AS is_baseline,
        score,
        trial
    FROM score_rows
    JOIN plan USING (source, golden_set, metric, model, prompt_name, prompt_version)
    WHERE list_contains($uneven, comparison)
),
numbered AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY comparison, case_id, case_hash, is_baseline
            ORDER BY score IS NULL, trial, score
        ) AS nth,
        least(
            count(score) FILTER (is_baseline) OVER one, count(score) FILTER (NOT is_baseline) OVER one
        ) AS most
    FROM sides
    WINDOW one AS (PARTITION BY comparison, case_id, case_hash)
)
SELECT
    comparison,
    avg(score) FILTER (is_baseline AND nth <= most) AS baseline,
    avg(score) FILTER (NOT is_baseline AND nth <= most) AS candidate
FROM numbered
GROUP BY comparison, case_id, case_hash
ORDER BY comparison, case_id, case_hash
