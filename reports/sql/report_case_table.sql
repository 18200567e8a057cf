-- Every case of every meeting, those that lost most first: its metrics as lists, in one order,
-- and what to show of it. Texts are of the candidate's worst trial and the baseline's best one.
WITH means AS (
    SELECT
        r.meeting, r.case_id, r.case_hash, r.metric,
        any_value(g.metric) IS NOT NULL AS gate,
        avg(r.score) FILTER (r.side = 'baseline') AS before,
        avg(r.score) FILTER (r.side = 'candidate') AS after,
        coalesce(
            max(r.score) FILTER (r.side = 'candidate') - min(r.score) FILTER (r.side = 'candidate'),
            0
        ) > 1e-9 AS flaky,
        bool_or(r.has_baseline) AS has_baseline,
        any_value(r.slices) AS slices,
        min(r.outcome) FILTER (r.side = 'candidate' AND r.outcome <> 'scored') AS outcome
    FROM side_rows AS r
    LEFT JOIN gates AS g ON g.meeting = r.meeting AND g.metric = r.metric
    GROUP BY r.meeting, r.case_id, r.case_hash, r.metric
),
cases AS (
    SELECT
        meeting, case_id, case_hash,
        list(metric ORDER BY metric) AS metrics,
        list(round(before, 4) ORDER BY metric) AS before,
        list(round(after, 4) ORDER BY metric) AS after,
        bool_or(flaky) AS flaky,
        any_value(slices) AS slices,
        min(outcome) AS outcome,
        coalesce(min(after - CASE WHEN has_baseline THEN before ELSE 1 END) FILTER (gate), 0)
            AS gating_drop,
        coalesce(min(after - CASE WHEN has_baseline THEN before ELSE 1 END), 0) AS any_drop
    FROM means
    GROUP BY ALL
),
trials AS (
    SELECT
        meeting, side, case_id, case_hash, trial,
        sum(coalesce(score, 0)) AS total, any_value(trace_id) AS trace_id,
        arg_min(
            {'metric': metric, 'reason': left(reason, $at_most_chars)}, coalesce(score, -1)
        ) FILTER (reason <> '' AND coalesce(score, 0) < 1) AS said
    FROM side_rows
    GROUP BY ALL
),
told AS (
    SELECT
        meeting, case_id, case_hash,
        arg_max({'id': trace_id, 'said': said}, total) FILTER (side = 'baseline') AS before,
        arg_min({'id': trace_id, 'said': said}, total) FILTER (side = 'candidate') AS after
    FROM trials
    GROUP BY ALL
),
shown AS (
    SELECT *, count(*) OVER () AS n_all
    FROM cases
    ORDER BY gating_drop, any_drop, meeting, case_id, case_hash
    LIMIT $at_most
)
SELECT
    s.*,
    told.before.said AS said_before, told.after.said AS said_after,
    left(coalesce(c.input, b.input), $fetched_chars) AS input,
    left(b.output, $fetched_chars) AS output_before,
    left(c.output, $fetched_chars) AS output_after
FROM shown AS s
LEFT JOIN told USING (meeting, case_id, case_hash)
LEFT JOIN run_calls AS b ON b.trace_id = told.before.id
LEFT JOIN run_calls AS c ON c.trace_id = told.after.id
ORDER BY s.gating_drop, s.any_drop, s.meeting, s.case_id, s.case_hash
