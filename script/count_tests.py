#!/usr/bin/env python3
"""Counts what CTest ran: passed, failed and skipped on one line, then the names of what failed, a line each.

usage: count_tests.py CTEST.XML FOLDER

CTest's tests are one each, but for GoogleTest's suites, whose cases count: each leaves a report in a folder NAME.reports below
FOLDER. A suite that broke off has no report and counts as one test that failed.
"""

import re
import sys
import xml.etree.ElementTree as tree
from pathlib import Path


def of_case(case):
    """How one case of a suite's report ended."""
    if case.find("failure") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None or case.get("status") == "notrun" else "passed"


def of_suite(report):
    """The cases of a suite's report as (name, how it ended)."""
    return [(f"{case.get('classname')}.{case.get('name')}", of_case(case)) for case in tree.parse(report).getroot().iter("testcase")]


def of_test(test):
    """How one test of CTest's report ended. What skips itself says so by a SKIP_ property; what else did not run was not there."""
    skipped = test.find("skipped")
    if test.get("status") == "fail":
        return "failed"
    if test.get("status") == "notrun" and (skipped is None or not skipped.get("message", "").startswith("SKIP_")):
        return "failed"
    return "skipped" if test.get("status") in ("notrun", "disabled") or skipped is not None else "passed"


def main():
    reports = {}
    for report in Path(sys.argv[2]).rglob("*.reports/*.xml"):
        program = re.sub("_test$", "", report.parent.name.removesuffix(".reports"))
        reports[f"{program}.{report.stem}"] = report
    ended = []
    for test in tree.parse(sys.argv[1]).getroot().iter("testcase"):
        name, how = test.get("name"), of_test(test)
        cases = of_suite(reports[name.replace("/", ".")]) if name.replace("/", ".") in reports else []
        # A program may fail behind its last case, as sanitizers do.
        if not cases or (how == "failed" and all(end != "failed" for _, end in cases)):
            cases.append((name, how))
        ended += cases
    print(*(sum(end == wanted for _, end in ended) for wanted in ("passed", "failed", "skipped")))
    print(*(name for name, end in ended if end == "failed"), sep="\n", end="")


if __name__ == "__main__":
    main()
