"""Tables of what was served beside what was derived. A cell has one number where all agree, and else all of them."""

# The columns of a run: a heading, and the fact under it.
COLUMNS = {
    "turns": "turns",
    "requests": "requests",
    "socket": "requests over WebSocket",
    "failed": "requests failed",
    "retries": "retries",
    "upgrades": "upgrades",
    "refused": "upgrades refused",
    "reused": "requests on a used connection",
    "back": "fallbacks",
    "warm": "prewarms",
    "answers": "responses",
    "uncached": "input_uncached",
    "cached": "input_cached",
    "output": "output_visible",
    "tools": "tool calls",
}
RUN = "{:6} {:8} {:6} {:50} {:>5} " + " ".join(f"{{:>{len(heading)}}}" for heading in COLUMNS)
TOTAL = "{:32} {:>10} {:>10} {:>10}"


def headings():
    return RUN.format("", "codex", "over", "scenario", "s", *COLUMNS)


def run(verdict, played, metrics, rows):
    """A line: who played what, for how long, and the facts that say most."""
    cells = [_cell(played.facts.get(fact), metrics.get(fact), rows.get(fact)) for fact in COLUMNS.values()]
    return RUN.format(verdict, played.version, played.protocol, played.scenario.name, f"{played.seconds:.1f}", *cells)


def totals(facts, metrics, rows):
    """A line for each fact, summed over all runs."""
    yield TOTAL.format("all runs", "served", "/metrics", "rows")
    for fact, served in facts.items():
        yield TOTAL.format(fact, served, _number(metrics.get(fact)), _number(rows.get(fact)))


def _cell(*values):
    known = [value for value in values if value is not None]
    return _number(known[0]) if len(set(known)) == 1 else "/".join(map(_number, values))


def _number(value):
    return "-" if value is None else f"{value:.12g}"
