-- Every score of the pairs a report is about, once for each two pairs that meet, and side.
-- sides: which pair of which run is which side of which meeting.
CREATE OR REPLACE TEMP VIEW side_rows AS
SELECT sides.meeting, sides.side, sides.has_baseline, r.*
FROM scores AS r
JOIN sides
    ON r.run_id = sides.run_id
    AND r.golden_set = sides.golden_set
    AND r.model = sides.model
    AND r.prompt_version = sides.prompt_version
    AND (sides.prompt_name = '' OR r.prompt_name = sides.prompt_name)
