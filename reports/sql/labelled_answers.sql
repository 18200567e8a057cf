-- What people said of each answer of these golden sets: the mean over annotators, each with the
-- label that no other one replaces. An annotator who could not tell said nothing.
SELECT
    golden_set, metric, run_id, model, prompt_name, prompt_version, case_id, trial,
    avg(coalesce(score, passed::DOUBLE)) AS score,
    CASE WHEN bool_and(inclusion_prob IS NOT NULL) THEN max(inclusion_prob) END AS inclusion_prob
FROM labels
WHERE list_contains($golden_sets, golden_set)
    AND coalesce(score, passed::DOUBLE) IS NOT NULL
    AND label_id NOT IN (SELECT supersedes FROM labels WHERE supersedes IS NOT NULL)
GROUP BY ALL
ORDER BY ALL
