-- Who gave the scores of each metric on each side, in which versions, and how often it could not.
SELECT
    meeting, side, metric, max(tier) AS tier, any_value(scorer) AS scorer,
    list(DISTINCT scorer_version ORDER BY scorer_version)
        FILTER (scorer_version IS NOT NULL AND score IS NOT NULL) AS versions,
    count(score) AS n_scored,
    count(*) FILTER (outcome = 'judge_error') AS n_errors
FROM side_rows
GROUP BY meeting, side, metric
ORDER BY meeting, metric, side
