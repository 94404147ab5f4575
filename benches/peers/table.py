#!/usr/bin/env python3
"""table.py FILE: medians of the JSON lines that run.sh collects, as a Markdown row a measure and a column a monitor.

Exits with 1 if podherald lost an event, told one twice or told a wrong one.
"""
import sys
from statistics import median

from medians import read, values

LATENCY = {
    "running, p50 / p99 ms": ["sse.running_ms.from_sent.p50", "sse.running_ms.from_sent.p99"],
    "terminal with log": ["sse.terminal_ms.from_sent.p50", "sse.terminal_ms.from_sent.p99"],
    "running, over a raw watch of the same frame": ["sse_after_raw_ms.running.p50", "sse_after_raw_ms.running.p99"],
    "terminal with log, over raw": ["sse_after_raw_ms.terminal.p50", "sse_after_raw_ms.terminal.p99"],
    "CPU us an event": ["cpu_us_per_event"],
    "peak MiB": ["proc.peak_rss_mib"],
}
READERS = {
    "KiB a reader, idle / after": ["kib_per_conn", "kib_per_conn_after"],
    "deliveries/s": ["deliveries_per_s"],
    "CPU us a delivery": ["cpu_us_per_delivery"],
}
MEASURES = {
    "lat50": LATENCY,
    "lat200": LATENCY,
    "max": {
        "events/s": ["sse.events_per_s"],
        "last event behind last write, ms": ["sse.behind_ms"],
        "CPU us an event": ["cpu_us_per_event"],
    },
    "blast": {
        "events/s": ["events_per_s"],
        "CPU us an event": ["cpu_us_per_event"],
        "peak MiB": ["proc.peak_rss_mib"],
    },
    "cold": {
        "ready, ms": ["ready_ms"],
        "all visible, ms": ["all_visible_ms"],
        "CPU s": ["at_end.cpu_s"],
        "peak MiB": ["at_end.peak_rss_mib"],
    },
    "fanout": READERS,
    "fanout5k": READERS,
}


def cell(results, paths):
    found = [values(results, path) for path in paths]
    return " / ".join(short(median(numbers)) if numbers else "-" for numbers in found)


def short(number):
    """Three digits are more than two runs have in common."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}"


def faults(results):
    """Lost, twice, wrong: summed over all rounds, not a median."""
    lost = sum(values(results, "lost") + values(results, "sse.lost"))
    lost += sum(result["expected"] - result["delivered"] for result in results if "expected" in result)
    return [int(lost), int(sum(values(results, "dup"))), int(sum(values(results, "wrong")))]


def main(path):
    runs = read(path)
    monitors = list(dict.fromkeys(name for by_monitor in runs.values() for name in by_monitor))
    print(f"| | {' | '.join(monitors)} |\n|{'---|' * (len(monitors) + 1)}")
    for scenario, by_monitor in runs.items():
        for measure, paths in MEASURES[scenario].items():
            cells = [cell(by_monitor.get(name, []), paths) for name in monitors]
            print(f"| {scenario}: {measure} | {' | '.join(cells)} |")
    everything = {name: [run for by_monitor in runs.values() for run in by_monitor.get(name, [])] for name in monitors}
    bad = {name: faults(results) for name, results in everything.items()}
    print(f"| lost / twice / wrong | {' | '.join(' / '.join(map(str, bad[name])) for name in monitors)} |")
    print(f"| load average | {' | '.join(cell(everything[name], ['load1']) for name in monitors)} |")
    rounds = sorted({len(results) for by_monitor in runs.values() for results in by_monitor.values()})
    print(f"\nMedians of {'-'.join(map(str, rounds))} rounds; podherald and rawwatch publish nowhere, gomon publishes to Kafka.")
    return 1 if any(bad.get("podherald", [])) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
