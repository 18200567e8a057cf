-- What people preferred of two answers to the same case, from each answer's side: the mean over
-- annotators. A preference is two labels of one moment and trial, one for each answer; 1 is the
-- better one.
WITH said AS (
    SELECT * FROM labels
    WHERE list_contains($golden_sets, golden_set) AND metric = $metric AND score IS NOT NULL
        AND label_id NOT IN (SELECT supersedes FROM labels WHERE supersedes IS NOT NULL)
)
SELECT
    one.golden_set, one.case_id, one.trial,
    one.run_id, one.model, one.prompt_name, one.prompt_version,
    other.run_id AS other_run_id, other.model AS other_model,
    other.prompt_name AS other_prompt_name, other.prompt_version AS other_prompt_version,
    avg(one.score) AS score,
    CASE WHEN bool_and(one.inclusion_prob IS NOT NULL) THEN max(one.inclusion_prob) END
        AS inclusion_prob
FROM said AS one
JOIN said AS other USING (golden_set, case_id, annotator, labelled_at)
WHERE one.trace_id <> other.trace_id AND one.trial IS NOT DISTINCT FROM other.trial
GROUP BY ALL
ORDER BY ALL
