"""The reliability suite's table: faults injected, survived and lost, counted from the tests marked `fault`.

    @pytest.mark.fault("R6")
    def test_one_flipped_byte_is_found(tmp_path, record_property):
        for seed in range(20 * ROUNDS):
            ...
            record_property("survived", seed + 1)

A test that passes has survived what it recorded, or one fault; a test that fails has lost one more. ROUNDS is 1 in
`make test`; `make test-faults ROUNDS=10` injects ten times as many.
"""

import json
import os
from pathlib import Path

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "1"))

ROWS = {
    "R1": "kill -9 at any step, with and without workers",
    "R2": "resumed with another number of workers",
    "R3": "SIGTERM, SIGINT",
    "R4": "kill -9 inside a save",
    "R5": "disk full, no permission, read-only folder",
    "R6": "damaged checkpoint: truncated, one flipped byte, empty, another file",
    "R7": "hostile checkpoint: pickle gadget, http path, zip bomb, absolute names",
    "R8": "bad input files in every pack",
    "R9": "fuzzed input files",
    "R10": "a reading worker hangs, dies, raises",
    "R11": "NaN or infinite loss, gradient or input; degenerate batches; extreme temperatures",
    "R12": "faulty packs",
    "R13": "hostile recipes",
    "R15": "two runs in one folder; data or recipe changed under a run",
    "R16": "out of memory",
    "R17": "one of two processes killed or raising",
    "R18": "poisoned pairs",
}


class FaultTable:
    """A pytest plugin that counts the marked tests and ends the run with the table."""

    def __init__(self, path: str | None):
        self.path = Path(path) if path else None
        self.counts: dict[str, list[int]] = {}  # row -> survived, lost

    def pytest_collection_modifyitems(self, items) -> None:
        for item in items:
            for mark in item.iter_markers("fault"):
                (row,) = mark.args
                assert row in ROWS, f"{item.nodeid}: {row!r} is not a row of tests/faults.py"
                item.user_properties.append(("fault", row))

    def pytest_runtest_logreport(self, report) -> None:
        told = [value for name, value in report.user_properties if name == "survived"]
        for row in {value for name, value in report.user_properties if name == "fault"}:
            counts = self.counts.setdefault(row, [0, 0])
            if report.when == "call" and not report.skipped:
                counts[0] += max(told, default=0 if report.failed else 1)
            counts[1] += report.failed

    def rows(self) -> list[dict]:
        return [
            {"row": row, "fault": what, "injected": sum(self.counts[row]), "survived": self.counts[row][0], "lost": self.counts[row][1]}
            for row, what in ROWS.items()
            if row in self.counts
        ]  # fmt: skip

    def pytest_terminal_summary(self, terminalreporter) -> None:
        if not self.counts:
            return
        terminalreporter.section("faults")
        terminalreporter.line(f"{'':4} {'injected':>8} {'survived':>8} {'lost':>5}")
        for row in self.rows():
            terminalreporter.line("{row:4} {injected:8} {survived:8} {lost:5}  {fault}".format(**row))
        if self.path:
            self.path.write_text(json.dumps({"rounds": ROUNDS, "rows": self.rows()}, indent=2) + "\n")
