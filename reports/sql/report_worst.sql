-- The cases that lost most: by what gates, then by anything that is measured. Every meeting
-- has its share. Without a baseline, what lacks most to a full score. Trials averaged first.
-- $sign is -1 for the cases that gained most.
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
        coalesce(min($sign * (after - before)) FILTER (gates.metric IS NOT NULL), 0) AS gating_drop,
        min($sign * (after - before)) AS any_drop,
        sum($sign * (after - before)) AS total_drop
    FROM means LEFT JOIN gates USING (meeting, metric)
    GROUP BY ALL
),
placed AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY meeting ORDER BY gating_drop, any_drop, total_drop, case_id, case_hash
        ) AS place,
        count(*) OVER (PARTITION BY meeting) AS n_worse
    FROM drops
    WHERE any_drop < -1e-9
)
SELECT meeting, golden_set, case_id, case_hash, place, n_worse
FROM placed
ORDER BY place, gating_drop, any_drop, total_drop, meeting
LIMIT $at_most
