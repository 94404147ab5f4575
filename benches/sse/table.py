#!/usr/bin/env python3
"""table.py FILE: medians of the JSON lines that run.sh collects, one Markdown table a scenario.

Exits with 1 if a reader missed an event or had one out of order.
"""
import json
import sys
from collections import defaultdict
from statistics import median

COLUMNS = {
    "readers": "readers",
    "events/s offered": "offered_per_s",
    "deliveries/s": "deliveries_per_s",
    "p50 ms": "p50_ms",
    "p99 ms": "p99_ms",
    "max ms": "max_ms",
    "CPU us/delivery": "cpu_us",
    "events/read": "events_per_read",
    "idle KiB/reader": "idle_kib",
    "after": "loaded_kib",
    "delivered": "delivered",
    "expected": "expected",
    "disorder": "disorder",
    "load1": "load1",
}


def main(path):
    runs = defaultdict(lambda: defaultdict(list))
    with open(path) as lines:
        for result in map(json.loads, lines):
            runs[result["scenario"]][result["name"]].append(result)
    faults = 0
    for scenario, by_name in runs.items():
        print(f"\n{scenario}\n\n| | n | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 2)}")
        for name, results in by_name.items():
            cells = [f"{median(float(result[key]) for result in results):.10g}" for key in COLUMNS.values()]
            print(f"| {name} | {len(results)} | {' | '.join(cells)} |")
            faults += sum(result["disorder"] + abs(result["expected"] - result["delivered"]) for result in results)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
