"""Write a verdict as GitLab's code quality report, shown on a merge request's lines.

A reader of the finished verdict. A fingerprint stays the same as long as the finding
does, so that GitLab can say what is new and what is gone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalkit.decide.findings import Finding, findings_of
from evalkit.decide.render import plain

SEVERITIES = {
    "must-pass": "blocker",
    "regression": "critical",
    "unmeasurable": "major",
    "inconclusive": "minor",
    "regressed-case": "info",
}
MAX_ISSUES = 1_000
MAX_CHARS = 1_000


def code_quality(verdict: Mapping[str, Any], *, root: Path) -> str:
    """The report as JSON text: one issue for each finding that has a line in the project."""
    issues = [_issue(one) for one in findings_of(verdict, root=root) if one.place is not None]
    return json.dumps(issues[:MAX_ISSUES], indent=2, ensure_ascii=False) + "\n"


def _issue(finding: Finding) -> dict[str, Any]:
    assert finding.place is not None
    path, line = finding.place
    return {
        "description": plain(finding.text, MAX_CHARS),
        "check_name": f"evalkit-{finding.rule}",
        "fingerprint": hashlib.sha256(finding.key.encode("utf-8", "replace")).hexdigest(),
        "severity": SEVERITIES[finding.rule],
        "location": {"path": path, "lines": {"begin": line}},
    }
