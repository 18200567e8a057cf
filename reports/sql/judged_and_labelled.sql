-- The answers that both a judge of this version and people have scored, in any run or in one that
-- scored its answers again: the judge's latest score and whether it passed the answer, and every
-- annotator's label.
WITH said AS (
    SELECT
        run_id, trace_id, model, prompt_name, prompt_version, case_id, case_hash, trial,
        list(coalesce(score, passed::DOUBLE) ORDER BY label_id) AS labels
    FROM labels
    WHERE golden_set = $golden_set AND metric = $metric
        AND coalesce(score, passed::DOUBLE) IS NOT NULL
        AND label_id NOT IN (SELECT supersedes FROM labels WHERE supersedes IS NOT NULL)
    GROUP BY ALL
)
SELECT
    arg_max(scores.score, scores.run_id) AS judge,
    arg_max(scores.passed, scores.run_id) AS passed,
    any_value(said.labels) AS labels
FROM scores
JOIN said USING (model, prompt_name, prompt_version, case_id, case_hash, trial)
WHERE scores.golden_set = $golden_set AND scores.metric = $metric
    AND scores.scorer_version = $scorer_version AND scores.score IS NOT NULL
    AND (scores.run_id = said.run_id OR scores.trace_id = said.trace_id)
GROUP BY said.run_id, said.trace_id, model, prompt_name, prompt_version, case_id, case_hash, trial
ORDER BY ALL
