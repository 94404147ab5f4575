#!/usr/bin/env python3
"""table.py FILE: medians of the JSON lines that run.sh collects, one Markdown table a scenario.

Exits with 1 if an event was lost, came twice or was wrong.
"""
import sys

from medians import print_table, read, values

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
COUNTED = {"lost", "sse.lost", "dup", "wrong"}


def lost(scenario, results):
    """Events that did not come, came twice or were wrong."""
    faults = sum(sum(values(results, path)) for path in (COLUMNS[scenario] | FAULTS).values() if path in COUNTED)
    if scenario == "fanout":
        # Two status writes a pod become more events than two.
        faults += sum(max(0, result["expected"] - result["delivered"]) for result in results)
    return faults


def main(path):
    faults = 0
    for scenario, by_monitor in read(path).items():
        print(f"\n{scenario}\n")
        print_table(COLUMNS[scenario] | FAULTS | {"load1": "load1"}, by_monitor.items())
        faults += lost(scenario, by_monitor.get("podherald", []))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
