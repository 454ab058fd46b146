#!/usr/bin/env python3
"""Sends the recordings to tacho, reads the raw records back, and recomputes all results from deploy/METRICS.md and schemas/avro.

Recordings come with their times moved to now: some twice, copies whose bodies are in the wrong order, all again after the sessions
ended, and copies so late that their windows are final. Compared are totals, rows of final windows, and rows of sessions; ends with 1
if anything differs. Where the documents leave something open, a comment says what is assumed. Left out is what no recording does:
prewarms that fail or that begin twice, requests that were not sent or to compact, prices by tier or above a number of tokens, turns
that Codex prices, contradicting counts, many open calls, records without times or over an hour late, texts that are no numbers.
"""

import argparse
import collections
import datetime
import decimal
import itertools
import json
import pathlib
import re
import subprocess
import tempfile
import time
import tomllib

import otlp
from tacho import Tacho

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
EPOCH, MILLISECOND = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc), datetime.timedelta(milliseconds=1)
STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
# Nanoseconds in OTLP/JSON as it was recorded, and in protobuf between the tags of observed_time_unix_nano and event_name.
NANOS, DAY_NS = re.compile(rb'(?<=UnixNano": ")\d{19}|(?<=\x59).{7}[\x18-\x1f](?=\x62)', re.DOTALL), 86_400 * 10**9
# Sessions end within the run, and are re-opened.
GAP, SHORTER_GAP = "session_gap_ms = 1_800_000", "session_gap_ms = 65_000"
GAP_SECONDS, LATE_MS, GRACE_SECONDS, WINDOW_SECONDS, DIFFERENCES_SHOWN_MAX = 80, 180_000, 35, 300, 20
PRIVATE = {"prompt", "arguments", "output", "content", "response", "error.message", "user.email", "user.account_id"}
KINDS = ("input_uncached", "input_cached", "input_cache_write", "output_visible", "output_reasoning")
PER_UNIT = {"s": 10**6, "credit": 10**6, "USD": 10**9}
# The documents list the values of these labels, but not what they are on the wire: that is from the recordings.
SOURCES = {"Config": "policy", "User": "human", "AutomatedReviewer": "auto_reviewer"}
ENTRYPOINTS = {"codex_exec": "exec", "codex-tui": "cli", "codex_cli_rs": "cli", "codex-app-server": "app_server"}
# Columns of a session's row by attribute; conversation_starts has some of its own.
COLUMNS = {"team.id": "team", "service.name": "service_name", "app.version": "app_version", "terminal.type": "terminal_type"}
COLUMNS |= {"user.email": "user_email", "user.account_id": "user_account_id", "service_tier": "tier", "model_reasoning_effort": "effort"}
COLUMNS |= {name: name for name in ("project", "cost_centre", "department", "env", "model", "originator", "auth_mode", "agent_name")}
START_COLUMNS = {"reasoning_effort": "effort", "approval_policy": "approval_policy", "sandbox_policy": "sandbox_policy"}
DIMENSIONS = ("team", "project", "cost_centre", "department", "env", "model")
# Times and limits of METRICS.md that no setting holds.
SHARED_MS, ROW_BYTES_MAX = 30_000, 160


class Catalogue:
    """The tables of METRICS.md: kind, unit and labels of metrics; values of closed labels; which events derive."""

    def __init__(self):
        self.metrics, self.closed, self.events = {}, collections.defaultdict(set), {}
        for line in (DEPLOY / "METRICS.md").read_text(encoding="utf-8").splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            names = [re.findall(r"`([^`]+)`", cell) for cell in cells]
            if line.startswith("| `tacho_"):
                self.metrics[names[0][0]] = (cells[1], cells[2], names[3])
            elif line.startswith(("| `codex.", "| `unknown`")):
                self.events[names[0][0]] = cells[2]
            elif line.startswith("| `") and len(cells) == 3:
                self.closed[names[0][0]].update(names[2])

    def shown(self, label, value):
        """A value of a closed label as it is shown."""
        return value if value in self.closed[label] else "other"


class Record:
    """One log record: its attributes, those of its resource, and its times, in milliseconds and, as `us`, in microseconds."""

    def __init__(self, own, entry, position, log):
        self.own, self.values, observed_ns = own, attributes(entry["attributes"]), int(entry["observedTimeUnixNano"])
        self.conversation, self.event = self.values.get("conversation.id"), self.values.get("event.name")
        self.event = self.event if self.event in log.catalogue.events else "unknown"
        self.phase = self.values.get("startup.phase", "").partition("startup_prewarm_")[2]
        is_told = any(name in self.values for name in ("input_token_count", "error.message", "tacho.error"))
        in_part = {"codex.sse_event": is_told, "codex.startup_phase": bool(self.phase)}
        self.derives = in_part.get(self.event, log.catalogue.events[self.event] == "yes")
        times = {"attribute": stamp_ms(self.values.get("event.timestamp")), "time": int(entry["timeUnixNano"]) // 1_000_000}
        times["observed"] = observed_ns // 1_000_000
        self.source, given = next((each for each in times.items() if each[1]), ("received", log.clock))
        self.at = min(max(given, log.clock - log.time["max_age_ms"]), log.clock + log.time["max_skew_ms"])
        self.is_clamped, self.us = self.at != given, observed_ns // 1000 or self.at * 1000
        self.order = self.at, observed_ns, self.count("tool_result_seq") or 0, position
        marked = sorted((name, repr(value)) for name, value in self.values.items() if name not in PRIVATE and name[:6] != "tacho.")
        self.mark = self.conversation, observed_ns, tuple(marked)
        self.duration, self.status = self.count("duration_ms", 1000), self.count("http.response.status_code")
        self.succeeded, self.plan = self.values.get("success") in (True, "true"), self.values.get("auth_mode") == "Chatgpt"
        self.tool = "mcp" if self.values.get("mcp_server") else log.catalogue.shown("tool", self.values.get("tool_name"))

    def count(self, name, per_unit=1):
        """A number in sub-units, without them a whole one; None if there is none, or a negative one."""
        found = decimal.Decimal(str(self.values.get(name, -1)))
        return int(found * per_unit) if found >= 0 and (per_unit > 1 or found % 1 == 0) else None

    def tokens(self):
        """The counts of a response in disjoint kinds."""
        names = ("input", "cached", "cache_write", "output", "reasoning")
        spent, cached, written, output, reasoning = (self.count(name + "_token_count") or 0 for name in names)
        return dict(zip(KINDS, (spent - cached - written, cached, written, output - reasoning, reasoning)))


class Log:
    """The fold of one partition of the raw topic, in the order of its offsets, into sums that all partitions share."""

    def __init__(self, catalogue, control, prices, totals, windows):
        self.catalogue, self.time, self.settings, self.prices = catalogue, control["time"], control["settings"], prices
        self.totals, self.windows, self.clock, self.latest, self.segments, self.marks = totals, windows, 0, {}, [], set()

    def take(self, raw):
        """Folds one raw record, or a tick, which has no value."""
        self.clock = max(self.clock, min(raw["timestamp_ms"], (self.clock or raw["timestamp_ms"]) + self.time["max_step_ms"]))
        for segment in self.latest.values():
            segment.pass_time()
        records, tenant = [], raw["key"].partition("/")[0]
        for resource in raw["value"]["resourceLogs"] if raw["value"] else ():
            own = attributes(resource["resource"]["attributes"])
            for entry in (entry for scope in resource["scopeLogs"] for entry in scope["logRecords"]):
                records.append(Record(own, entry, len(records), self))
        for record in sorted(records, key=lambda record: record.order):
            labels = {"tenant": tenant, "event": record.event, "source": record.source}
            outcome = "unknown" if record.event == "unknown" else "late" if self.is_late(record.at, self.time["slot_ms"]) else "applied"
            outcome = "duplicate" if record.derives and record.mark in self.marks else outcome
            self.marks.add(record.mark)
            self.add("log_records_total", record.at, 1, labels | {"outcome": outcome})
            # Assumed: the source is counted for every record, as its metric says, although nothing else follows from a duplicate.
            self.add("event_time_source_total", record.at, 1, labels)
            self.add("event_time_clamped_total", record.at, 1 if record.is_clamped else None, labels)
            if outcome != "duplicate" and record.derives:
                self.segment_of(record, tenant, raw["offset"]).take(record, raw["offset"])

    def segment_of(self, record, tenant, offset):
        """The segment that the record is of; one that is kept nowhere, if it is of no conversation."""
        found = self.latest.get(record.conversation)
        if not found or found.state == "ended" and self.clock - found.last_clock > self.settings["reopen_horizon_ms"]:
            found = Segment(self, record, tenant, offset)
            self.latest |= {record.conversation: found} if record.conversation else {}
            self.segments += [found] if record.conversation else []
        return found

    def is_late(self, at, size):
        return self.clock >= at - at % size + size + self.time["grace_ms"]

    def add(self, metric, at, value, labels):
        """Adds to a counter, a value to a distribution, or numerator and denominator to a ratio; nothing, if there is no value."""
        if value is None:
            return
        kind, _, names = self.catalogue.metrics["tacho_" + metric]
        what = {value: 1} if kind.startswith(("histogram", "gauge, quantiles")) else {"count": value}
        if kind.startswith("gauge, ratio"):
            what = {"numerator": value[0], "denominator": value[1]}
        series = "tacho_" + metric, tuple((name, labels[name]) for name in names if labels.get(name))
        self.totals[series].update(what)
        for size in self.time["window_sizes_ms"]:
            arrival = self.clock - self.clock % self.time["slot_ms"] if self.is_late(at, size) else None
            self.windows[size, at - at % size, arrival, series].update(what)

    def amounts(self, book, record, tokens):
        """(what each kind of token costs, what cached ones would have cost more as uncached ones, why there is no price)."""
        model, day = record.values.get("model", ""), (EPOCH + record.at * MILLISECOND).date().isoformat()
        model = re.sub(r"-\d{4}-\d\d-\d\d$", "", model)
        rows = [row for row in self.prices if (row["book"], row["model"]) == (book, model) and not row.keys() & {"tier", "context_above"}]
        row = next((row for row in rows if row.get("effective_from", "") <= day < row.get("effective_to", "9")), None)
        if not row:
            return {}, 0, "date" if rows else "model"
        prices = [row["input"], row.get("cached_input", row["input"]), row.get("cache_write", row["input"]), row["output"], row["output"]]
        # Prices are in millionths for a million tokens; half a sub-unit is rounded up.
        per = 1000 if book == "api_usd" else 10**6
        amounts = {kind: (2 * tokens[kind] * price + per) // (2 * per) for kind, price in zip(KINDS, prices)}
        return amounts, (2 * tokens["input_cached"] * row["input"] + per) // (2 * per) - amounts["input_cached"], None


class Segment:
    """A segment of a conversation. Assumed: nothing that an earlier segment knew is known in the next one."""

    def __init__(self, log, record, tenant, offset):
        self.log, self.conversation, self.tenant, self.first_offset = log, record.conversation, tenant, offset
        self.identity, self.state, self.active, self.started, self.last_event = {}, "open", None, record.at, record.at
        self.counts, self.decisions, self.tools, self.websocket, self.prewarm = (collections.Counter() for _ in range(5))
        # The request that is open; whether a failure waits for its retry, and whether the last upgrade was a retry.
        self.request, self.failed, self.upgrade_retried, self.used_websocket, self.fell_back = None, False, False, False, False
        # The latest window of a prewarm, and what of prewarms is due or out.
        self.window, self.window_began, self.due = {"open": False, "ended": 0}, False, collections.Counter()
        self.agent, self.limit, self.last_input, self.calls, self.early_results = "root", None, None, set(), set()

    def take(self, record, offset):
        """Folds one record that derives. Assumed: the latest value of an attribute is that of the last record folded."""
        columns, named = COLUMNS | (START_COLUMNS if record.event == "codex.conversation_starts" else {}), record.own | record.values
        self.identity |= {columns[name]: str(named[name]) for name in columns if named.get(name) not in (None, "")}
        self.agent = "subagent" if record.values.get("agent_name") not in (None, "", "/root") else self.agent
        self.see(record.at)
        if self.conversation:
            self.add("sessions_started_total", None if self.counts else 1)
            # Assumed: a segment is active under the labels of now.
            active = {label: self.labels[label] for label in ("tenant", "team", "entrypoint")}
            if self.active != active:
                self.add("sessions_active", -1 if self.active else None, **(self.active or {}))
                self.add("sessions_active")
            self.state, self.active = "reopened" if self.state == "ended" else self.state, active
            self.last_event, self.last_clock, self.last_offset = max(self.last_event, self.at), self.log.clock, offset
        self.counts["records"] += 1
        getattr(self, "on_" + record.event.removeprefix("codex."))(record)

    def see(self, at):
        """What is added next is at that time, and under the labels of now."""
        # Assumed: the model is unassigned as dimensions are, and the originator says more than the name of the service.
        known = [ENTRYPOINTS.get(self.identity.get(name)) for name in ("originator", "service_name")]
        self.at, self.labels = at, {name: self.identity.get(name, "unassigned") for name in DIMENSIONS}
        self.labels |= {"tenant": self.tenant, "agent": self.agent, "entrypoint": known[0] or known[1] or "other"}

    def add(self, metric, value=1, **labels):
        self.log.add(metric, self.at, value, self.labels | labels)

    def pass_time(self):
        """Ends the segment, if it was silent for so long by the partition clock. Assumed: a request over WebSocket ends with it."""
        ends = self.last_clock + self.log.settings["session_gap_ms"]
        if self.state != "ended" and self.log.clock >= ends:
            self.see(self.log.clock)
            self.end_request()
            self.see(ends)
            self.add("sessions_active", -1, **self.active)
            self.state, self.active = "ended", None

    def on_api_request(self, record):
        wire, status = record.values.get("endpoint") or "/responses", record.status
        of_turn, succeeded = wire.startswith("/responses"), 200 <= (status or 0) <= 399 and not record.values.get("error.message")
        layer = "http" if record.count("attempt") else "stream" if of_turn and self.failed else None
        self.labels |= {"transport": "http", "endpoint": self.log.catalogue.shown("endpoint", wire), "status_class": class_of(status)}
        self.labels["attempt_class"] = "retry" if layer else "first"
        if of_turn and self.used_websocket and not self.fell_back:
            self.fell_back = True
            self.websocket["fallbacks"] += 1
            self.add("websocket_fallbacks_total")
        self.count_retry(layer)
        self.counts.update(api_requests=1, api_duration_us=record.duration or 0, requests_failed=of_turn and not succeeded)
        self.add("api_requests_total")
        self.add("api_request_duration_seconds", record.duration)
        if not succeeded:
            self.count_error(status, record.values.get("tacho.error"))
        if of_turn:
            self.add("api_retry_window_ratio", (bool(layer), 1))
            self.add("api_request_duration_window_seconds", record.duration)
            self.add("response_duration_seconds", None if succeeded else record.duration, outcome="failed")
            self.end_request()
            self.failed, opened = not succeeded, {"over": "http", "sent": record.us - (record.duration or 0)}
            self.request = opened if succeeded else None

    def count_retry(self, layer):
        self.counts.update(["api_retries", f"api_retries_{layer}"] if layer else ())
        self.add("api_retries_total", 1 if layer else None, layer=layer)

    def count_error(self, status, word):
        """Counts a failed request. Assumed, since no document says it: 408 and 504 are timeouts, and no status is the network's fault."""
        known = {429: "rate_limited", 401: "auth", 403: "auth", 408: "timeout", 504: "timeout"}
        by_class = {"4xx": "bad_request", "5xx": "server", "none": "timeout" if word in ("timeout", "idle_timeout") else "network"}
        kind = known.get(status) or by_class.get(class_of(status), "other")
        self.counts["api_errors"] += 1
        self.add("api_errors_total", status_code=self.log.catalogue.shown("status_code", str(status).lower()), error_type=kind)
        self.add("api_rate_limited_total", 1 if status == 429 else None)

    def end_request(self, status=None, word=None):
        """The open request has its end; one over WebSocket is counted. Assumed: the ratio of retries counts it then, too."""
        request, self.request, labels = self.request or {}, None, dict(self.labels)
        if request.get("over") == "websocket":
            self.labels |= {"transport": "websocket", "endpoint": "/responses", "attempt_class": "retry" if request["again"] else "first"}
            self.add("api_requests_total", status_class=class_of(status))
            self.add("api_retry_window_ratio", (request["again"], 1))
            if word:
                self.count_error(status, word)
        self.labels = labels

    def on_websocket_connect(self, record):
        refused, in_turn, self.used_websocket = not record.succeeded, not self.window["open"], True
        self.labels |= {"outcome": "refused" if refused else "accepted", "endpoint": "/responses"}
        code = self.log.catalogue.shown("status_code", str(record.status).lower()) if refused else None
        self.add("websocket_connects_total", status_code=code, phase="turn" if in_turn else "prewarm")
        self.add("websocket_connect_seconds", record.duration)
        self.websocket.update(connects=1, refused=refused, refused_in_turns=in_turn and refused)
        if in_turn:
            self.count_retry("websocket" if self.failed else None)
            self.upgrade_retried |= self.failed
            self.failed = refused and record.status != 426

    def on_websocket_request(self, record):
        self.used_websocket, self.labels["endpoint"] = True, "/responses"
        if self.due["requests"] and self.window["open"]:
            self.due.update(requests=-1, out=1)
            self.prewarm["requests"] += 1
            self.add("prewarm_requests_total")
            return
        self.end_request()
        self.count_retry("websocket" if self.failed else None)
        again, self.failed, self.upgrade_retried = self.failed or self.upgrade_retried, False, False
        reused = record.values.get("auth.connection_reused") is True
        self.counts["api_requests"] += 1
        self.websocket.update(requests=1, reused=reused)
        self.add("websocket_reused_total", reused=str(reused).lower())
        self.request = {"over": "websocket", "sent": record.us, "again": again}

    def on_sse_event(self, record):
        """Finds out whose an error or a completed response is."""
        is_near = self.due["responses"] and (self.window["open"] or abs(record.at - self.window["ended"]) <= SHARED_MS)
        over_http, output = bool(self.request) and self.request["over"] == "http", record.count("output_token_count")
        if "input_token_count" not in record.values:
            self.on_error(record)
        elif not is_near or output or over_http or "ttft_ms" in record.values or "model_reasoning_effort" in record.values:
            self.count_response(record)
        else:
            self.answer_prewarm(record)

    def on_error(self, record):
        request, word, self.failed = self.request, str(record.values.get("tacho.error")), True
        if record.values.get("event.kind") != "response.completed":
            return
        # The words for what an error says of a status are in no document.
        asked = re.fullmatch(r"status_(\d+)", word)
        self.counts["stream_failures"] += not asked
        self.add("stream_failures_total", None if asked else 1, error_type=word)
        if request and request["sent"] <= record.us:
            self.counts["requests_failed"] += 1
            self.add("response_duration_seconds", record.us - request["sent"], transport=request["over"], outcome="failed")
            self.end_request(int(asked[1]) if asked else {"rate_limited": 429, "server": 500}.get(word), word)

    def count_response(self, record):
        """A response of a turn."""
        request, tokens = self.request, record.tokens()
        # Assumed: where no request is open, the transport is the one that the conversation uses.
        over = request["over"] if request else "websocket" if self.used_websocket and not self.fell_back else "http"
        self.add("first_token_seconds", record.count("ttft_ms", 1000), transport=over)
        if request and request["sent"] <= record.us:
            # Assumed: a row's sum is of completed answers only.
            self.counts["answer_us"] += record.us - request["sent"]
            self.add("response_duration_seconds", record.us - request["sent"], transport=over, outcome="completed")
            self.end_request(200)
        self.failed = self.upgrade_retried = False
        self.counts.update(tokens, responses_completed=1)
        for kind, count in tokens.items():
            self.add("tokens_total", count, kind=kind)
        spent = sum(tokens[kind] for kind in KINDS[:3])
        self.add("response_tokens", spent, direction="input")
        self.add("response_tokens", sum(tokens.values()) - spent, direction="output")
        self.add("cache_hit_window_ratio", (tokens["input_cached"], spent))
        self.count_money(record, tokens)
        # Assumed: without any limit, no compaction is inferred.
        if self.last_input and self.limit and 2 * spent <= self.last_input and 10 * self.last_input >= 6 * self.limit:
            self.counts["compactions"] += 1
            self.add("compactions_total", method="inferred")
            self.add("compaction_reclaimed_tokens", self.last_input - spent)
        self.last_input = spent

    def count_money(self, record, tokens):
        """What the response costs in each book that it is paid by."""
        self.labels |= {"tier": "default", "billing_basis": "subscription_equivalent" if record.plan else "api_list"}
        for book in ("api_usd", "chatgpt_credits")[: 1 + record.plan]:
            amounts, saved, reason = self.log.amounts(book, record, tokens)
            total, in_credits = sum(amounts.values()), book == "chatgpt_credits"
            if reason:
                self.add("unpriced_tokens_total", sum(tokens.values()), book=book, reason=reason)
                self.counts["unpriced_tokens"] += sum(tokens.values()) if record.plan == in_credits else 0
            elif in_credits:
                self.counts["micro_credits"] += total
                self.add("credits_total", total)
            else:
                self.counts["equivalent_nano_usd" if record.plan else "cost_nano_usd"] += total
                self.add("cost_usd_total", total)
                self.add("cache_savings_usd_total", saved)
                for kind, amount in amounts.items():
                    self.add("cost_by_kind_usd_total", amount, kind=kind)

    def on_startup_phase(self, record):
        near = self.window["open"] or abs(self.at - self.window["ended"]) <= SHARED_MS
        is_later = record.phase in ("build_tools", "build_prompt") and not (near and self.window_began)
        if record.phase == "create_turn_context" or is_later:
            self.window, self.window_began = {"open": True, "ended": 0}, True
            self.due.update(requests=1, responses=1)
        elif self.window["open"] and record.phase in ("total", "resolve"):
            if record.values.get("startup.status") == "failed" and not self.due["out"]:
                self.due -= collections.Counter(requests=1, responses=1)
            self.window |= {"open": False, "ended": self.at}
            self.add("prewarm_windows_total", closed_by=record.phase)

    def answer_prewarm(self, record):
        """A response of a prewarm that completed."""
        tokens = record.tokens()
        amounts, _, reason = self.log.amounts("api_usd", record, tokens)
        self.due -= collections.Counter(responses=1, out=1)
        self.prewarm.update(completed=1, cost_nano_usd=sum(amounts.values()))
        self.add("prewarm_responses_total", outcome="completed", basis="window")
        for kind, count in tokens.items():
            self.prewarm[kind if kind in KINDS[:3] else "output"] += count
            self.add("prewarm_tokens_total", count, kind=kind)
        self.add("prewarm_cost_usd_total", None if reason else sum(amounts.values()), billing_basis="api_list")

    def on_conversation_starts(self, record):
        self.counts["conversation_starts"] += 1
        self.used_websocket = self.fell_back = self.window_began = False
        self.limit = record.count("auto_compact_token_limit") or record.count("context_window") or self.limit

    def on_user_prompt(self, _record):
        self.counts["user_prompts"] += 1
        # Assumed: a prompt ends an open request over HTTP as well, without an answer.
        self.end_request()
        self.failed = self.upgrade_retried = False
        self.add("turns_total")

    def on_turn_ttft(self, record):
        effort = self.log.catalogue.shown("effort", self.identity.get("effort", "default"))
        self.counts.update(ttft_count=record.duration is not None, ttft_us=record.duration or 0)
        self.add("ttft_seconds", record.duration, effort=effort, tier="default")
        self.add("ttft_window_seconds", record.duration)

    def on_tool_decision(self, record):
        call, source = record.values.get("call_id"), SOURCES.get(record.values.get("source"), "unknown")
        decision = self.log.catalogue.shown("decision", record.values.get("decision"))
        approved = decision.startswith("approved")
        self.labels |= {"tool": record.tool, "decision": decision, "source": source}
        self.add("approval_decisions_total")
        self.add("policy_auto_window_ratio", (source == "policy", 1))
        self.add("human_approval_window_ratio", (approved, 1) if source == "human" else None)
        self.decisions[record.tool, decision, source] += 1
        if approved and call not in self.early_results:
            self.calls.add(call)

    def on_tool_result(self, record):
        tool, failed, call, values = record.tool, not record.succeeded, record.values.get("call_id"), record.values
        self.labels |= {"tool": tool, "origin": "mcp" if tool == "mcp" else "builtin", "outcome": "failure" if failed else "success"}
        self.add("tool_calls_total")
        self.add("tool_duration_seconds", record.duration)
        self.add("tool_nonzero_exit_total", 1 if values.get("tacho.exit_code") else None)
        of_team = (values.get("tool_name"), values.get("tool_namespace")) == ("spawn_agent", "collaboration") and not failed
        self.counts.update(tool_calls=1, tool_failures=failed, tool_duration_us=record.duration or 0)
        self.counts.update(nonzero_exits=bool(values.get("tacho.exit_code")), spawned_agents="tacho.spawned_agent" in values or of_team)
        self.tools.update({(tool, "calls"): 1, (tool, "failures"): failed})
        self.early_results |= {call} - self.calls
        self.calls.discard(call)

    def row(self, partition):
        """Its row of codex.sessions.v1, but for position and revision."""
        row = {name: value.encode()[:ROW_BYTES_MAX].decode(errors="ignore") for name, value in self.identity.items()} | self.counts
        row |= {"tenant": self.tenant, "conversation_id": self.conversation, "state": self.state, "entrypoint": self.labels["entrypoint"]}
        row |= {"segment_start_ms": self.started, "started_ms": self.started, "last_event_ms": self.last_event}
        row |= {"ended_ms": self.last_event if self.state == "ended" else None, "duration_ms": self.last_event - self.started}
        row |= {"first_offset": self.first_offset, "last_offset": self.last_offset, "open_calls": len(self.calls)}
        row |= {"source_topic": "codex.raw.logs.v1", "source_partition": partition, "websocket": self.websocket, "prewarm": self.prewarm}
        tokens, names = {kind: row.pop(kind, 0) for kind in KINDS}, sorted({tool for tool, _ in self.tools})
        decisions = [dict(zip(("tool", "decision", "source"), key)) | {"count": count} for key, count in sorted(self.decisions.items())]
        tools = [{"tool": tool} | {what: self.tools[tool, what] for what in ("calls", "failures")} for tool in names]
        return row | {"tokens": tokens | {"total": sum(tokens.values())}, "decisions": decisions, "tools": tools}


def attributes(entries):
    """Attributes of OTLP/JSON as a dictionary."""
    values = ((entry["key"], kind, value) for entry in entries for kind, value in (entry.get("value") or {}).items())
    return {key: int(value) if kind == "intValue" else value for key, kind, value in values}


def stamp_ms(text):
    """A time of RFC 3339 in milliseconds, cut off towards the past; None if there is none."""
    return (datetime.datetime.fromisoformat(text) - EPOCH) // MILLISECOND if text else None


def class_of(status):
    return "none" if status is None else "429" if status == 429 else f"{status // 100}xx"


def moved(content, by_ms, conversations):
    """A request whose times are moved, and whose ids of conversations begin differently."""

    def nanos(found):
        number = (int(found[0]) if len(found[0]) == 19 else int.from_bytes(found[0], "little")) + by_ms * 10**6
        # Other bytes that look so give no time of today.
        is_none = abs(number - time.time_ns()) > DAY_NS
        return found[0] if is_none else b"%d" % number if len(found[0]) == 19 else number.to_bytes(8, "little")

    time_of = lambda found: EPOCH + (stamp_ms(found[0].decode()) + by_ms) * MILLISECOND
    stamp = lambda found: time_of(found).isoformat(timespec="milliseconds")[:23].encode() + b"Z"
    return NANOS.sub(nanos, STAMP.sub(stamp, content)).replace(b"01a2", conversations)


def send(tacho, conversations, late_ms=0, reverse=False):
    """Sends the recordings that are not lossy as if they ended now; every fourth of them twice."""
    for number, entry in enumerate(json.loads((otlp.FIXTURES / "index.json").read_text(encoding="utf-8"))):
        bodies = [body for body in otlp.recording(otlp.FIXTURES / entry["folder"]) if body.signal == "logs" and not entry["lossy"]]
        last_ms = max((stamp_ms(stamp.decode()) for body in bodies for stamp in STAMP.findall(body.bytes)), default=0)
        by_ms = int(time.time() * 1000) - late_ms - last_ms
        for body in (bodies[::-1] if reverse else bodies) * (2 if number % 4 == 0 else 1):
            otlp.Body("logs", body.content_type, moved(body.bytes, by_ms, conversations)).send(tacho.otlp["json"])


def read(tacho, topic, *flags):
    """The records of a topic."""
    command = [tacho.binary, "read", topic, "--json", tacho.process.args[1], *flags]
    printed = subprocess.check_output(command, stdin=subprocess.DEVNULL, timeout=60)
    return [json.loads(line) for line in printed.splitlines()]


def samples_of(totals, catalogue):
    """The samples of /metrics for these totals."""
    found = {}
    for (metric, labels), what in totals.items():
        kind, per_unit = catalogue.metrics[metric][0], PER_UNIT.get(catalogue.metrics[metric][1], 1)
        if kind.startswith("histogram"):
            low, high = map(int, re.findall(r"2\^(-?\d+)", kind))
            for bound in (2.0**power for power in range(low, high + 1)):
                below = sum(count for value, count in what.items() if value <= bound * per_unit)
                found[f"{metric}_bucket", frozenset([*labels, ("le", f"{bound:.17g}")])] = below
            found[f"{metric}_bucket", frozenset([*labels, ("le", "+Inf")])] = found[f"{metric}_count", frozenset(labels)] = what.total()
            found[f"{metric}_sum", frozenset(labels)] = sum(value * count for value, count in what.items()) / per_unit
        elif not kind.startswith(("gauge, ratio", "gauge, quantiles")):
            found[metric, frozenset(labels)] = what["count"] / per_unit
    return found


def value_of(kind, unit, what, scale):
    """The value of a window's row, as it is in the topic."""
    if not kind.startswith(("histogram", "gauge, quantiles")):
        return what
    buckets = collections.Counter()
    for value, count in what.items():
        # A bound is a root of a power of two: raised to that power, value and bound compare as integers.
        power, unit_power = value ** 2**scale, PER_UNIT.get(unit, 1) ** 2**scale
        index = power.bit_length() - unit_power.bit_length()
        buckets[index + (power << max(0, -index) > unit_power << max(0, index))] += count if value else 0
    of_buckets = [{"index": index, "count": count} for index, count in sorted(buckets.items()) if count]
    return {"count": what.total(), "sum": sum(value * count for value, count in what.items()), "zero": what[0], "buckets": of_buckets}


def leaves(path, value):
    """The values of a tree by path, but for zeros and what is empty."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if parts is None:
        return {path: value} if value else {}
    return {each: leaf for key, part in parts for each, leaf in leaves((*path, key), part).items()}


def compared(tacho, catalogue, control, prices):
    """Values by what they are: (what, those of the documents, those of tacho)."""
    raws = sorted(read(tacho, "codex.raw.logs.v1", "--from-start"), key=lambda raw: (raw["partition"], raw["offset"]))
    totals, windows, rows = collections.defaultdict(collections.Counter), collections.defaultdict(collections.Counter), {}
    for number, of_partition in itertools.groupby(raws, lambda raw: raw["partition"]):
        log = Log(catalogue, control, prices, totals, windows)
        for raw in of_partition:
            log.take(raw)
        rows |= {f"{each.tenant}/{each.conversation}/{each.started}-{each.first_offset}": each.row(number) for each in log.segments}
    shown = {metric for metric, (kind, *_) in catalogue.metrics.items() if not kind.startswith(("gauge, ratio", "gauge, quantiles"))}
    samples = [(name, frozenset(labels.items() - {("log", "main")}), value) for name, labels, value in tacho.totals()]
    found = {each[:2]: each[2] for each in samples if {each[0], re.sub("_(bucket|count|sum)$", "", each[0])} & shown}
    yield "totals", samples_of(totals, catalogue), found
    sessions = {row["key"]: row["value"] | {"position": None, "revision": None} for row in read(tacho, "codex.sessions.v1")}
    yield "fields of sessions", leaves((), rows), leaves((), sessions)
    for topic, size in (("codex.windows.1m.v1", 60_000), ("codex.windows.5m.v1", 300_000)):
        told, found, wanted = {}, {}, {key[1:]: what for key, what in windows.items() if key[0] == size}
        for row, value in ((row, row["value"]) for row in read(tacho, topic, "--from-start")):
            series = value["metric"], tuple((label["name"], label["value"]) for label in value["labels"])
            if value["metric"] == "tacho_window_complete":
                told[row["partition"]] = value["end_ms"]
            else:
                key, scale = (value["start_ms"], value["arrival_ms"], series), value["value"].get("scale")
                found[key] = value["value"] | dict.fromkeys(("per_unit", "quantiles", "ratio", "scale"))
                wanted[key] = value_of(*catalogue.metrics[series[0]][:2], wanted.get(key, collections.Counter()), scale)
        is_told = lambda key: (key[0] + size if key[1] is None else key[1] + control["time"]["slot_ms"]) <= min(told.values(), default=0)
        yield topic, *(leaves((), {key: value for key, value in side.items() if is_told(key)}) for side in (wanted, found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tacho", required=True, help="the tacho binary")
    options = parser.parse_args()
    catalogue, prices = Catalogue(), tomllib.loads((DEPLOY / "prices.toml").read_text(encoding="utf-8"))["prices"]["rows"]
    settings = (DEPLOY / "control.toml").read_text(encoding="utf-8").replace(GAP, SHORTER_GAP)
    with tempfile.TemporaryDirectory(prefix="tacho-recompute-") as work:
        work = pathlib.Path(work)
        (work / "seed.toml").write_text(settings, encoding="utf-8")
        with open(work / "tacho.log", "w", encoding="utf-8") as log:
            tacho = Tacho(options.tacho, work / "data", log, [f"--seed={work}/seed.toml"])
        try:
            tacho.wait_ready()
            send(tacho, b"01a2")
            send(tacho, b"0bad", reverse=True)
            time.sleep(GAP_SECONDS)
            send(tacho, b"01a2")
            send(tacho, b"01a7", late_ms=LATE_MS)
            time.sleep(max(GAP_SECONDS, WINDOW_SECONDS - time.time() % WINDOW_SECONDS + GRACE_SECONDS))
            wrong = []
            for what, wanted, found in compared(tacho, catalogue, tomllib.loads(settings), prices):
                keys = [key for key in wanted.keys() | found.keys() if wanted.get(key, 0) != found.get(key, 0)]
                print(f"{len(wanted.keys() | found.keys())} {what}, {len(keys)} differ", flush=True)
                differences = [f"{what}: {key} is {found.get(key)}, not {wanted.get(key)}" for key in keys]
                wrong += differences if wanted else [f"{what}: there is nothing to compare"]
        finally:
            tacho.end()
    print("\n".join(wrong[:DIFFERENCES_SHOWN_MAX]))
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
