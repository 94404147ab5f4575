#!/usr/bin/env python3
"""table.py FILE: medians of the JSON lines that run.sh collects, a Markdown row a scenario.

Exits with 1 if a reader missed an event or had one out of order.
"""
import sys

from medians import print_table, read

COLUMNS = {
    "readers": "readers",
    "events/s offered": "offered_per_s",
    "deliveries/s": "deliveries_per_s",
    "p50 ms": "p50_ms",
    "p99 ms": "p99_ms",
    "first reader p50 ms": "first_p50_ms",
    "last reader p99 ms": "last_p99_ms",
    "KiB a reader idle": "idle_kib",
    "after": "loaded_kib",
    "CPU us a delivery": "cpu_us",
    "events a read": "events_per_read",
    "server's core busy %": "server_busy",
    "readers' core busy %": "client_busy",
    "load1": "load1",
}


def main(path):
    rows = []
    for scenario, by_name in read(path).items():
        for name, results in by_name.items():
            rows.append((scenario if name == "podherald" else f"{scenario}, {name}", results))
    print_table(COLUMNS, rows)
    faults = 0
    for title, results in rows:
        for result in results:
            missing, disorder = result["expected"] - result["delivered"], result["disorder"]
            if missing or disorder:
                print(f"{title}: {missing} of {result['expected']} events missing, {disorder} out of order", file=sys.stderr)
                faults += 1
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
