#!/usr/bin/env python3
"""A ledger of made-up Codex sessions: the records, and what every series must have counted when all of them are in.

Which records come is decided by a seed; only their times are the wall clock's. Each batch is sent until it is answered
with 200, byte for byte the same: a record that went in twice counts once.

    ledger.py --otlp http://HOST:PORT[,http://HOST:PORT...] --seed N --conversations N --expected FILE

sends one in turn to each address, and writes FILE for prometheus_check.py.
"""

import argparse
import collections
import http.client
import itertools
import json
import random
import time
import urllib.parse

BATCH_RECORDS = 40
# Between batches, so that scrapes see the totals grow.
PAUSE_SECONDS = 0.05
ANSWER_SECONDS_MAX = 10
# A killed process is back within this time, or the run has failed.
SEND_SECONDS_MAX = 60

# What is shown of sessions that name no team.
UNASSIGNED = "unassigned"
TEAMS = ("blue", "red", "green", UNASSIGNED)
MODELS = ("gpt-5.5", "gpt-5.5-mini")
TOOLS = ("exec_command", "apply_patch")
DECISIONS = (("Config", "policy"), ("User", "human"))


class Ledger:
    """Records in order, as (team, record); and sums by (metric, labels)."""

    def __init__(self, seed, conversations, name):
        self.random = random.Random(seed)
        self.records = []
        self.counters = collections.Counter()
        self.values = collections.defaultdict(lambda: [0, 0])
        open_sessions = [self._conversation(f"{name}-{seed}-{number}") for number in range(conversations)]
        while open_sessions:
            session = self.random.choice(open_sessions[:8])
            try:
                self.records.append(next(session))
            except StopIteration:
                open_sessions.remove(session)

    def expected(self):
        """What prometheus_check.py takes: by metric, a value for each set of labels, which together are all there is."""
        found = {}
        for (metric, labels), value in self.counters.items():
            entry = found.setdefault(metric, {"metric": metric, "kind": "counter", "where": {}, "series": []})
            entry["series"].append({"labels": dict(labels), "value": value})
        for (metric, labels), (count, total) in self.values.items():
            per = 1000 if metric.endswith("_seconds") else 1
            entry = found.setdefault(metric, {"metric": metric, "kind": "histogram", "where": {}, "series": []})
            entry["series"].append({"labels": dict(labels), "count": count, "sum": total / per})
        # Records that were sent twice are counted there too, under another outcome.
        found["tacho_log_records_total"]["where"] = {"outcome": "applied"}
        return list(found.values())

    def batches(self):
        """The bodies of requests, made when they are asked for: with the time of that moment."""
        for start in range(0, len(self.records), BATCH_RECORDS):
            batch = self.records[start : start + BATCH_RECORDS]
            teams = {}
            for number, (team, (event, conversation, attributes)) in enumerate(batch):
                teams.setdefault(team, []).append(_record(event, conversation, time.time_ns() + number * 1000, attributes))
            resources = []
            for team, records in teams.items():
                attributes = [_attribute("service.name", "codex_exec")] + ([] if team == UNASSIGNED else [_attribute("team.id", team)])
                resources.append({"resource": {"attributes": attributes}, "scopeLogs": [{"logRecords": records}]})
            yield json.dumps({"resourceLogs": resources}).encode()

    def _count(self, metric, value=1, **labels):
        self.counters[metric, tuple(sorted(labels.items()))] += value

    def _value(self, metric, value, **labels):
        cell = self.values[metric, tuple(sorted(labels.items()))]
        cell[0] += 1
        cell[1] += value

    def _conversation(self, name):
        pick, team, model = self.random, self.random.choice(TEAMS), self.random.choice(MODELS)
        who = {"team": team, "model": model}

        def record(event, **attributes):
            self._count("tacho_log_records_total", event=event, outcome="applied")
            return team, (event, name, {"model": model, **attributes})

        self._count("tacho_sessions_started_total", **who)
        call = 0
        for _ in range(pick.randint(1, 4)):
            self._count("tacho_turns_total", **who)
            yield record("codex.user_prompt", prompt_length=str(pick.randint(1, 500)))
            for _ in range(pick.randint(1, 3)):
                yield record("codex.api_request", **self._request(who, 200))
                yield record("codex.sse_event", **self._tokens(who))
                if pick.random() < 0.6:
                    call += 1
                    tool, (wire, source) = pick.choice(TOOLS), pick.choice(DECISIONS)
                    self._count("tacho_approval_decisions_total", team=team, tool=tool, decision="approved", source=source)
                    same = {"tool_name": tool, "tool_namespace": "functions", "call_id": f"{name}-{call}"}
                    yield record("codex.tool_decision", **same, decision="approved", source=wire)
                    yield record("codex.tool_result", **same, tool_result_seq=str(call), **self._tool(team, tool))
        # Last, since what follows a failure would be a retry.
        if pick.random() < 0.3:
            yield record("codex.api_request", **self._request(who, 429))

    def _request(self, who, status):
        taken = 0 if self.random.random() < 0.02 else int(self.random.lognormvariate(6, 1.5))
        status_class = "429" if status == 429 else f"{status // 100}xx"
        self._count("tacho_api_requests_total", **who, endpoint="/responses", status_class=status_class, attempt_class="first")
        if status != 200:
            self._count("tacho_api_errors_total", model=who["model"], status_code=str(status))
            self._count("tacho_api_rate_limited_total", **who)
        self._value("tacho_api_request_duration_seconds", taken, model=who["model"], endpoint="/responses", status_class=status_class)
        return {"duration_ms": str(taken), "http.response.status_code": status, "attempt": 0, "endpoint": "/responses"}

    def _tokens(self, who):
        pick = self.random
        put, out = pick.randint(100, 100_000), pick.randint(1, 4_000)
        cached, reasoning = pick.randint(0, put), pick.randint(0, out)
        kinds = {"input_uncached": put - cached, "input_cached": cached, "output_visible": out - reasoning, "output_reasoning": reasoning}
        for kind, tokens in kinds.items():
            self._count("tacho_tokens_total", tokens, **who, kind=kind)
        self._value("tacho_response_tokens", put, model=who["model"], direction="input")
        self._value("tacho_response_tokens", out, model=who["model"], direction="output")
        return {
            "event.kind": "response.completed",
            "input_token_count": str(put),
            "output_token_count": str(out),
            "cached_token_count": str(cached),
            "cache_write_token_count": "0",
            "reasoning_token_count": str(reasoning),
            "tool_token_count": str(put + out),
        }

    def _tool(self, team, tool):
        taken, success = self.random.randint(0, 20_000), self.random.random() < 0.9
        outcome = "success" if success else "failure"
        self._count("tacho_tool_calls_total", team=team, tool=tool, outcome=outcome)
        self._value("tacho_tool_duration_seconds", taken, tool=tool, outcome=outcome)
        return {"duration_ms": str(taken), "success": str(success).lower(), "output": ""}


def send(ledger, addresses, progress=lambda sent: None):
    """Sends everything, in turn to each address; calls `progress` with the number of records that were answered with 200."""
    sent, addresses = 0, itertools.cycle(addresses)
    for body in ledger.batches():
        began = time.monotonic()
        while not _post(next(addresses), body):
            if time.monotonic() - began > SEND_SECONDS_MAX:
                raise RuntimeError(f"nobody took a batch for {SEND_SECONDS_MAX} s")
            time.sleep(PAUSE_SECONDS)
        sent += min(BATCH_RECORDS, len(ledger.records) - sent)
        progress(sent)
        time.sleep(PAUSE_SECONDS)


def _post(address, body):
    """Whether all records of the body were taken."""
    at = urllib.parse.urlsplit(address)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=ANSWER_SECONDS_MAX)
    try:
        connection.request("POST", "/v1/logs", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
    except (OSError, http.client.HTTPException):
        return False  # it may be in or not: sent again, it counts once
    finally:
        connection.close()
    if answer.status == 200:
        if json.loads(said or b"{}").get("partialSuccess", {}).get("rejectedLogRecords"):
            raise RuntimeError(f"records were rejected: {said.decode()}")
        return True
    if answer.status in (429, 502, 503, 504):
        return False
    raise RuntimeError(f"a batch was answered with {answer.status}: {said.decode()}")


def _record(event, conversation, time_ns, attributes):
    seconds, rest = divmod(time_ns, 1_000_000_000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 1_000_000:03}Z"
    fields = {"event.name": event, "event.timestamp": stamp, "conversation.id": conversation, **attributes}
    return {"observedTimeUnixNano": str(time_ns), "attributes": [_attribute(key, value) for key, value in fields.items()]}


def _attribute(key, value):
    return {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--otlp", required=True, help="addresses of OTLP over HTTP, with commas between")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--conversations", type=int, default=500)
    parser.add_argument("--expected", required=True, help="where to write what must have been counted")
    options = parser.parse_args()
    # Another run with the same seed must be other conversations.
    ledger = Ledger(options.seed, options.conversations, f"ledger-{time.time_ns()}")
    send(ledger, options.otlp.split(","))
    with open(options.expected, "w", encoding="utf-8") as file:
        json.dump(ledger.expected(), file, indent=1)
    print(f"{len(ledger.records)} records of {options.conversations} conversations, all answered with 200")


if __name__ == "__main__":
    main()
