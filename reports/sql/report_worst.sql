-- The cases that lost most, worst first: by what gates, then by anything that is measured.
-- Without a baseline, what lacks most to a full score. Trials are averaged first.
WITH means AS (
    SELECT
        meeting, golden_set, case_id, case_hash, metric,
        CASE WHEN bool_or(has_baseline) THEN avg(score) FILTER (side = 'baseline') ELSE 1 END
            AS before,
        avg(score) FILTER (side = 'candidate') AS after
    FROM side_rows
    GROUP BY ALL
),
drops AS (
    SELECT
        meeting, golden_set, case_id, case_hash,
        min(after - before) FILTER (gates.metric IS NOT NULL) AS gating_drop,
        min(after - before) AS any_drop,
        sum(after - before) AS total_drop
    FROM means LEFT JOIN gates USING (meeting, metric)
    GROUP BY ALL
)
SELECT meeting, golden_set, case_id, case_hash, count(*) OVER () AS n_worse
FROM drops
WHERE any_drop < -1e-9
ORDER BY coalesce(gating_drop, 0), any_drop, total_drop, golden_set, case_id, meeting
LIMIT $at_most
