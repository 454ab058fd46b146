#!/usr/bin/env python3
"""Runs one bench of two checkouts in turn, and tells how their costs compare: the ratio of each row, with its interval.

    pairs.py --old DIR --new DIR --bench NAME [--pairs N] [--keep FILE] [-- ARGUMENTS OF THE BENCH]

DIR is a checkout of this repository; its benches are built there first. A pair is a run of each checkout, one right after
the other, and every second pair begins with the other one: a machine that grows slower with time slows both. Of each row
the ratio of new to old is taken pair by pair. Printed are the geometric mean of the ratios, and the ends of its 95 %
interval by Student's t over their logarithms. Rows are the benchmarks of Criterion, or the lines of a table that has a column
`CPU s a million`. --keep appends what each run printed to a file.
"""

import argparse
import collections
import json
import math
import pathlib
import re
import statistics
import subprocess
import sys

CPU_COLUMN = "CPU s a million"
# A benchmark of Criterion with its time: the least, the estimate, the most. A long name has a line of its own.
CRITERION = re.compile(r"^(\S.*?)\s+time:\s+\[\S+ \S+ (\S+) (\S+) \S+ \S+\]$", re.MULTILINE)
SECONDS = {"ps": 1e-12, "ns": 1e-9, "µs": 1e-6, "us": 1e-6, "ms": 1e-3, "s": 1.0}
# The 97.5th percentile of Student's t by degrees of freedom; between two of them the one of fewer is taken.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228,
           11: 2.201, 12: 2.179, 13: 2.160, 14: 2.145, 15: 2.131, 19: 2.093, 24: 2.064, 29: 2.045, 39: 2.023, 59: 2.001}


def program(checkout, bench):
    """Builds a bench in a checkout, and gives the path of its program."""
    command = ["cargo", "build", "--release", "--locked", "--bins", "--bench", bench, "--message-format=json"]
    built = subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.PIPE, text=True)
    for message in map(json.loads, built.stdout.splitlines()):
        target = message.get("target", {})
        if message.get("executable") and "bench" in target["kind"] and target["name"] == bench:
            return message["executable"]
    raise RuntimeError(f"{checkout} has no bench {bench}")


def costs(said):
    """The cost of each row that a bench printed, by its name."""
    rows = {}
    joined = re.sub(r"\n\s+time:", " time:", said)
    for name, value, unit in CRITERION.findall(joined):
        rows[name] = float(value) * SECONDS[unit]
    column = None
    for line in said.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        at = next((index for index, cell in enumerate(cells) if cell.startswith(CPU_COLUMN)), None)
        if at is not None:
            column = at
        elif column is not None and len(cells) > column and (found := re.match(r"[\d.]+", cells[column])):
            rows[", ".join(cells[:column])] = float(found[0])
    return rows


def interval(ratios):
    """The geometric mean of some ratios, and the ends of its 95 % interval."""
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logs)
    freedom = max(known for known in STUDENT if known <= len(logs) - 1)
    half = STUDENT[freedom] * statistics.stdev(logs) / math.sqrt(len(logs))
    return tuple(math.exp(mean + step) for step in (0, -half, half))


def run(path, checkout, arguments, keep):
    ran = subprocess.run([path, "--bench", *arguments], cwd=checkout, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if keep:
        with open(keep, "a", encoding="utf-8") as file:
            print(f"### {checkout}", ran.stdout, ran.stderr, sep="\n", file=file)
    if ran.returncode != 0:
        raise RuntimeError(f"{path} ended with {ran.returncode}:\n{ran.stderr[-3000:]}")
    rows = costs(ran.stdout)
    if not rows:
        raise RuntimeError(f"{path} printed no row that is known here:\n{ran.stdout[-3000:]}")
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, type=pathlib.Path, help="the checkout to compare with")
    parser.add_argument("--new", required=True, type=pathlib.Path, help="the checkout that is judged")
    parser.add_argument("--bench", required=True, help="scan, apply, scrub, end_to_end or ingest")
    parser.add_argument("--pairs", type=int, default=10, help="at least 2 [default: 10]")
    parser.add_argument("--keep", help="a file that takes what each run printed")
    parser.add_argument("arguments", nargs="*", help="arguments of the bench, after --")
    options = parser.parse_args()
    if options.pairs < 2:
        parser.error("--pairs: an interval needs two pairs or more")
    sides = [(program(checkout, options.bench), checkout) for checkout in (options.old, options.new)]
    ratios, olds = collections.defaultdict(list), collections.defaultdict(list)
    for pair in range(options.pairs):
        order = (0, 1) if pair % 2 == 0 else (1, 0)
        found = {side: run(*sides[side], options.arguments, options.keep) for side in order}
        for row in (row for row in found[0] if row in found[1]):
            olds[row].append(found[0][row])
            ratios[row].append(found[1][row] / found[0][row])
        print(f"pair {pair + 1} of {options.pairs}", file=sys.stderr, flush=True)
    print("| row | old, median | new to old | 95 % interval |", "|---|---|---|---|", sep="\n")
    for row, values in ratios.items():
        if len(values) != options.pairs:
            raise RuntimeError(f"{row} was printed by {len(values)} of {options.pairs} pairs only")
        mean, low, high = interval(values)
        print(f"| {row} | {statistics.median(olds[row]):.4g} | {mean:.3f} | {low:.3f} to {high:.3f} |")


if __name__ == "__main__":
    main()
