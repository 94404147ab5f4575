#!/usr/bin/env python3
"""table.py FILE: medians of the JSON lines that run.sh collects, one Markdown table a scenario.

Exits with 1 if an event was lost, came twice or was wrong.
"""
import json
import sys
from collections import defaultdict
from statistics import median

LATENCY = {
    "running over raw p50, ms": "sse_after_raw_ms.running.p50",
    "p99": "sse_after_raw_ms.running.p99",
    "terminal with log over raw p50, ms": "sse_after_raw_ms.terminal.p50",
    "p99 ": "sse_after_raw_ms.terminal.p99",
    "write to SSE p50: running, ms": "sse.running_ms.from_sent.p50",
    "terminal": "sse.terminal_ms.from_sent.p50",
    "CPU us/event": "cpu_us_per_event",
    "peak MiB": "proc.peak_rss_mib",
    "lost": "sse.lost",
}
COLUMNS = {
    "lat50": LATENCY,
    "lat200": LATENCY,
    "blast": {
        "events/s": "events_per_s",
        "watch taken ms": "watch_taken_ms",
        "CPU us/event": "cpu_us_per_event",
        "peak MiB": "proc.peak_rss_mib",
        "lost": "lost",
    },
    "cold": {
        "ready ms": "ready_ms",
        "all visible ms": "all_visible_ms",
        "CPU s": "at_end.cpu_s",
        "peak MiB": "at_end.peak_rss_mib",
        "lost": "lost",
    },
    "fanout": {
        "KiB/connection": "kib_per_conn",
        "after": "kib_per_conn_after",
        "deliveries/s": "deliveries_per_s",
        "CPU us/delivery": "cpu_us_per_delivery",
        "delivered": "delivered",
        "expected": "expected",
    },
}
FAULTS = {"twice": "dup", "wrong": "wrong"}


def get(result, path):
    for key in path.split("."):
        result = (result or {}).get(key)
    return result


def main(path):
    runs = defaultdict(lambda: defaultdict(list))
    for line in open(path):
        result = json.loads(line)
        runs[result["scenario"]][result["name"]].append(result)
    faults = 0
    for scenario, by_monitor in runs.items():
        columns = COLUMNS[scenario] | FAULTS | {"load1": "load1"}
        print(f"\n{scenario}\n\n| | n | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 2)}")
        for monitor, results in by_monitor.items():
            cells = []
            for name, path in columns.items():
                values = [float(value) for result in results if (value := get(result, path)) is not None]
                cells.append(f"{median(values):.10g}" if values else "-")
                if monitor == "podherald" and name in ("lost", "wrong", "twice"):
                    faults += sum(values)
            print(f"| {monitor} | {len(results)} | {' | '.join(cells)} |")
            if monitor == "podherald" and scenario == "fanout":
                # Two status writes a pod become more events than two.
                faults += sum(max(0, result["expected"] - result["delivered"]) for result in results)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
