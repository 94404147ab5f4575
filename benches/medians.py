"""Medians of the JSON lines that a bench's run.sh has kept, as Markdown tables."""
import json
from collections import defaultdict
from statistics import median


def read(path):
    """Results by scenario and then by the name of what was measured, in the order in which they came."""
    runs = defaultdict(lambda: defaultdict(list))
    with open(path) as lines:
        for result in map(json.loads, lines):
            runs[result["scenario"]][result["name"]].append(result)
    return runs


def values(results, path):
    """The numbers at this dotted path, of those results that have one."""
    found = []
    for result in results:
        for key in path.split("."):
            result = (result or {}).get(key)
        if result is not None:
            found.append(float(result))
    return found


def print_table(columns, rows):
    """`columns` are paths by title, `rows` pairs of a title and its results."""
    print(f"| | n | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 2)}")
    for title, results in rows:
        numbers = [values(results, path) for path in columns.values()]
        cells = [f"{median(found):.10g}" if found else "-" for found in numbers]
        print(f"| {title} | {len(results)} | {' | '.join(cells)} |")
