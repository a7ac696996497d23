"""The block of docs/speed.md, from what is recorded in benchmarks/results; a row that is not recorded is not there.

python benchmarks/speed.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from page_blocks import write_blocks

RESULTS = Path(__file__).parent / "results"
HEAD = ["| | ours | of what | ratio | goal |", "|---|---|---|---|---|"]


def recorded(name: str, device: str) -> dict:
    """What a benchmark recorded on a device; empty when it did not run there."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()).get(device, {}) if path.is_file() else {}


def loss_rows(device: str) -> list[str]:
    """Ours beside the fastest peer, at the largest size that the peer was tried at."""
    lines = []
    rows = [row for row in recorded("loss", device).get("rows", []) if "seconds" in row]
    for problem in dict.fromkeys(row["problem"] for row in rows):
        peers = [row for row in rows if row["problem"] == problem and not row["name"].startswith("counterpoint")]
        for size in sorted({row["pairs"] for row in peers})[-1:]:
            peer = min((row for row in peers if row["pairs"] == size), key=lambda row: row["seconds"])
            own = [row for row in rows if row["problem"] == problem and row["pairs"] == size and row not in peers]
            for row in own:
                what = f"loss of {size:,} {problem}, {row['name']} ({device}), {row['peak_bytes'] / 2**20:,.0f} MiB"
                beside = f"{peer['name']} {peer['seconds'] * 1e3:,.0f} ms, {peer['peak_bytes'] / 2**20:,.0f} MiB"
                lines.append(_line(what, f"{row['seconds'] * 1e3:,.0f} ms", beside, row["seconds"] / peer["seconds"]))
    return lines


def loop_rows(device: str) -> list[str]:
    rows = recorded("loop", device).get("rows", [])
    times = {(row["size"], row["name"]): row["seconds"] for row in rows}
    lines = []
    for row in (row for row in rows if "goal" in row):
        what = f"steps a second of `counterpoint fit` ({device}), {times[row['size'], 'bare'] * 1e3:.1f} ms a bare step"
        for peer, title, goal in (
            ("bare", "a loop by hand that draws nothing per sample", f"{row['goal']:.2f} or more"),
            ("parts", "the same parts by hand", ""),
        ):
            beside = f"{title} {1 / times[row['size'], peer]:.0f}"
            spread = row["of_bare_quartiles"] if peer == "bare" else ()
            lines.append(_line(what, f"{1 / row['seconds']:.0f}", beside, row[f"of_{peer}"], goal, spread))
    return lines


def end_rows(device: str) -> list[str]:
    rows = {row["name"]: row for row in recorded("end_to_end", device).get("rows", [])}
    if not rows:
        return []
    ours, bare = (f"{rows[name]['samples_per_second']:,.0f}" for name in ("counterpoint", "bare"))
    what = f"samples a second of `counterpoint fit {recorded('end_to_end', device)['recipe']}` ({device})"
    row = rows["counterpoint"]
    beside = f"a bare loop that does the same {bare}"
    return [_line(what, ours, beside, row["of_bare"], quartiles=row["of_bare_quartiles"])]


def views_rows(device: str) -> list[str]:
    rows = recorded("views", device).get("rows", [])
    rates = {(row["problem"], row["name"]): row.get("samples_per_second", 0.0) for row in rows}
    return [
        _line(
            f"views a second, {row['problem']}{row['name'].removeprefix('counterpoint')} ({device})",
            f"{row['samples_per_second']:,.0f}",
            f"{row['peer']} {rates[row['problem'], row['peer']]:,.0f}",
            row["of_peer"],
            f"{row['goal']:g} or more",
            row["of_peer_quartiles"],
        )
        for row in rows
        if "goal" in row
    ]


def startup_rows(device: str) -> list[str]:
    lines = []
    for row in recorded("startup", device).get("rows", []):
        beyond = row.get("beyond_imports")
        goal = f"{row['goal']:.2f} s" + ("" if beyond is None else f" beyond imports (here {beyond:.2f} s)")
        torch = "torch imported" if row["torch_imported"] else "torch not imported"
        lines.append(f"| `counterpoint {row['command']}` | {row['cpu_seconds']:.2f} s CPU | {torch} | | {goal} |")
    return lines


def _line(what: str, ours: str, peer: str, ratio: float, goal: str = "", quartiles: Sequence[float] = ()) -> str:
    shown = f"{ratio:.2f}" + (" ({:.2f} to {:.2f})".format(*quartiles) if quartiles else "")
    return f"| {what} | {ours} | {peer} | {shown} | {goal} |"


def markdown() -> str:
    """The table of what was recorded, and what was not measured."""
    lines, notes = [], []
    for device in ("cpu", "cuda"):
        lines += [line for rows in (loss_rows, loop_rows, end_rows, views_rows, startup_rows) for line in rows(device)]
        found = {name: recorded(name, device) for name in ("loss", "loop", "end_to_end", "views", "startup")}
        named = [f"{name} {one['date']} on {one['machine']}" for name, one in found.items() if one]
        notes += [", ".join(named)] if named else ["GPU: not measured" if device == "cuda" else "CPU: not measured"]
    return "\n".join([*(HEAD + lines + [""] if lines else []), ". ".join(notes) + "."]) + "\n"


if __name__ == "__main__":
    write_blocks("speed")
