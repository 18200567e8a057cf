-- All scores of the chosen cases, every trial of both sides.
SELECT
    r.meeting, r.side, r.case_id, r.case_hash, r.metric, r.tier, r.trial, r.score, r.passed,
    r.outcome, r.error_kind, left(r.reason, 2000) AS reason, r.trace_id, r.cluster, r.slices,
    gates.metric IS NOT NULL AS gate
FROM side_rows AS r
JOIN chosen USING (meeting, case_id, case_hash)
LEFT JOIN gates USING (meeting, metric)
ORDER BY r.meeting, r.case_id, r.side, r.trial, gate DESC, r.tier, r.metric
