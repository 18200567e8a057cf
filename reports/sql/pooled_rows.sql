-- The rows of each pooled baseline: its newest run's, and of the other runs those of the same
-- case, metric and scorer. Each run's answer to a case is one more trial of it.
--
-- own_rows: every score of both sides. members: which pair of which run belongs to which pool.
WITH newest AS (
    SELECT DISTINCT members.pool, r.metric, r.case_id, r.case_hash, r.scorer_version
    FROM own_rows AS r
    JOIN members USING (source, golden_set, model, prompt_name, prompt_version)
    WHERE members.newest
)
SELECT members.pool AS source, r.* EXCLUDE (source)
FROM own_rows AS r
JOIN members USING (source, golden_set, model, prompt_name, prompt_version)
SEMI JOIN newest
    ON newest.pool = members.pool
    AND newest.metric = r.metric
    AND newest.case_id = r.case_id
    AND newest.case_hash = r.case_hash
    AND newest.scorer_version IS NOT DISTINCT FROM r.scorer_version
