"""Write a verdict in the formats that CI systems read: JUnit XML and SARIF.

A reader of the finished verdict, like `render`. Text of others is cut and cleaned of
what XML cannot hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from evalkit.decide.findings import RULES, Finding, findings_of

_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
MAX_RESULTS = 1_000


def junit(verdict: Mapping[str, Any]) -> str:
    """One test case for each comparison and each must-pass failure.

    A regression is a failure, what is unmeasurable an error, inconclusive is skipped.
    """
    suite = ElementTree.Element("testsuite", name="evalkit gate")
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for classname, name, kind, message in _junit_cases(verdict):
        case = ElementTree.SubElement(suite, "testcase", classname=_xml(classname), name=_xml(name))
        counts["tests"] += 1
        if kind in ("failure", "error", "skipped"):
            counts["skipped" if kind == "skipped" else f"{kind}s"] += 1
            ElementTree.SubElement(case, kind, message=_xml(message))
        else:
            ElementTree.SubElement(case, "system-out").text = _xml(message)
    for name, count in counts.items():
        suite.set(name, str(count))
    ElementTree.indent(suite)
    body = ElementTree.tostring(suite, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body}\n'


def _junit_cases(verdict: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    from evalkit.decide.render import comparison_sentence

    kinds = {"regression": "failure", "unmeasurable": "error", "inconclusive": "skipped"}
    for c in verdict["comparisons"]:
        kind = kinds.get(c["verdict"], "pass") if c["gate"] else "pass"
        name = f"{c['metric']}[{c['slice']}]" if c["slice"] else c["metric"]
        side = c["candidate"]
        pair = "/".join(str(side[k]) for k in ("model", "prompt_version") if side[k])
        yield (
            f"gate.{c['golden_set'] or 'results'}",
            f"{name} {pair}".rstrip(),
            kind,
            comparison_sentence(c),
        )
    for entry in verdict["must_pass_failures"]:
        yield (
            f"must_pass.{entry['golden_set']}",
            f"{entry['case_id']} {entry['metric']}",
            "failure",
            str(entry["reason"] or "failed"),
        )
    if verdict["verdict"] == "unmeasurable" and not verdict["comparisons"]:
        yield "gate", "gate", "error", _why_nothing(verdict)


def _xml(text: str) -> str:
    return _NOT_XML.sub("�", text)[:2_000]


# --- SARIF --------------------------------------------------------------------------


def sarif(verdict: Mapping[str, Any], *, root: Path) -> str:
    """SARIF 2.1.0: a result per failing comparison and case, on the golden set's lines.

    Where nothing could be compared, one that says why.
    """
    found = findings_of(verdict, root=root)[:MAX_RESULTS] or _of_the_whole(verdict)
    document = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "evalkit",
                        "rules": [
                            {"id": name, "shortDescription": {"text": text}}
                            for name, text in RULES.items()
                        ],
                    }
                },
                "results": [_result(one) for one in found],
            }
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _of_the_whole(verdict: Mapping[str, Any]) -> list[Finding]:
    if verdict["verdict"] != "unmeasurable":
        return []
    # It is about no line; readers of SARIF refuse a result that names none.
    place = ("evalkit.toml", 1)
    return [Finding(rule="unmeasurable", text=_why_nothing(verdict), key="gate", place=place)]


def _why_nothing(verdict: Mapping[str, Any]) -> str:
    return "; ".join(verdict["notes"]) or "nothing was compared"


def _result(finding: Finding) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "level": finding.level,
        "message": {"text": _NOT_XML.sub("�", finding.text)[:1_000]},
    }
    if finding.place is not None:
        uri, line = finding.place
        location = {"artifactLocation": {"uri": uri}, "region": {"startLine": line}}
        result["locations"] = [{"physicalLocation": location}]
    return result
