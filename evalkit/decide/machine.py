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
NO_LINE = ("evalkit.toml", 1)
"""Where a result is about no line that is known: GitHub refuses a file with one that names none."""


def junit(verdict: Mapping[str, Any]) -> str:
    """One test case for each comparison, and for each score that must pass and does not.

    A regression is a failure, what is unmeasurable an error; the inconclusive is skipped, or
    an error where it fails.
    """
    suite = ElementTree.Element("testsuite", name="evalkit gate")
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    cases = list(_junit_cases(verdict))
    if verdict["verdict"] == "unmeasurable" and all(kind != "error" for _, _, kind, _ in cases):
        cases.append(("gate", "gate", "error", _why(verdict)))
    for classname, name, kind, message in cases:
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

    unsure = "error" if verdict["strict"] else "skipped"
    kinds = {"regression": "failure", "unmeasurable": "error", "inconclusive": unsure}
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
    for of, kind, otherwise in (
        ("must_pass_failures", "failure", "failed"), ("must_pass_missing", "error", "no score"),
    ):  # fmt: skip
        for entry in verdict[of]:
            yield (
                f"must_pass.{entry['golden_set']}",
                f"{entry['case_id']} {entry['metric']}",
                kind,
                str(entry["reason"] or otherwise),
            )


def _xml(text: str) -> str:
    return _NOT_XML.sub("�", text)[:2_000]


# --- SARIF --------------------------------------------------------------------------


def sarif(verdict: Mapping[str, Any], *, root: Path) -> str:
    """SARIF 2.1.0: a result per failing comparison and case, on the golden set's lines.

    Where all is unmeasurable and none of these is why, one that says it.
    """
    found = findings_of(verdict, root=root)[:MAX_RESULTS]
    if verdict["verdict"] == "unmeasurable" and all(one.level != "error" for one in found):
        whole = Finding(rule="unmeasurable", text=_why(verdict), key="gate", place=None)
        found.insert(0, whole)
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


def _why(verdict: Mapping[str, Any]) -> str:
    return "; ".join(verdict["notes"]) or "nothing was compared"


def _result(finding: Finding) -> dict[str, Any]:
    uri, line = finding.place or NO_LINE
    location = {"artifactLocation": {"uri": uri}, "region": {"startLine": line}}
    return {
        "ruleId": finding.rule,
        "level": finding.level,
        "message": {"text": _NOT_XML.sub("�", finding.text)[:1_000]},
        "locations": [{"physicalLocation": location}],
    }
