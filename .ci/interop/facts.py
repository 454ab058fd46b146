"""The facts that are compared, by name: what a scenario must have added, what /metrics shows, and what the rows of sessions hold."""

import collections

from script import UPGRADE_REQUIRED

TOKENS = ("input_uncached", "input_cached", "input_cache_write", "output_visible", "output_reasoning")
RETRIES = ("retries by the HTTP client", "retries of streams", "retries over WebSocket")
LAYERS = ("http", "stream", "websocket")
CLASSES = ("2xx", "429", "4xx", "5xx", "none")
# What /metrics shows late of requests whose end Codex does not tell.
LATE = ("requests", "requests over WebSocket", "requests answered none")


def expected(scenario, served):
    """What was served, and what only the scenario knows: how tools ended, who decided, how often Codex was asked."""
    sent, made, warmed = served.websocket, served.upgrades, served.prewarms
    by_policy = scenario.calls - scenario.failures if scenario.by_policy is None else scenario.by_policy
    retries = _retries(served) if scenario.retries is None else (0, 0, 0)
    return {
        "requests": served.requests,
        "requests over HTTP": served.http.count,
        "requests over WebSocket": sent.count,
        **{f"requests answered {name}": count for name, count in _answered(served).items()},
        "requests failed": served.failed(),
        "errors": served.http.errors.total() + sent.failed(),
        "rate limited": _answered(served)["429"],
        "stream failures": served.cut,
        "retries": sum(retries) if scenario.retries is None else scenario.retries,
        **dict(zip(RETRIES, retries)),
        "responses": served.completed,
        "first tokens": served.http.with_items + sent.with_items if scenario.first_tokens else 0,
        "upgrades": made.accepted + made.refused.total(),
        "upgrades refused": made.refused.total(),
        "upgrades refused with 426": made.refused[426],
        "upgrades refused in turns": made.refused_in_turns.total(),
        "requests on a used connection": sent.reused,
        "requests on a new connection": sent.count - sent.reused,
        "fallbacks": served.fallbacks,
        "prewarms": warmed.requests,
        "prewarms completed": warmed.completed,
        "prewarms failed": warmed.failed,
        # Codex tells of its start.
        "prewarms known by a sign": 0,
        "prewarm tokens": warmed.input,
        "input_uncached": served.input_uncached,
        "input_cached": served.input_cached,
        "input_cache_write": 0,
        "output_visible": served.output_visible,
        "output_reasoning": served.output_reasoning,
        "tool calls": scenario.calls,
        "tool failures": scenario.failures,
        "nonzero exits": scenario.nonzero_exits,
        "approved by policy": by_policy,
        "other decisions": scenario.by_others,
        "turns": len(scenario.turns) if scenario.prompts is None else scenario.prompts,
        "sessions": len(served.threads),
    }


def _answered(served):
    """Requests by the class of their status. Over HTTP that has come before an answer breaks; over WebSocket a whole answer
    stands for a good one, and one that fails because of a rate limit for 429."""
    sent, refused = served.websocket, served.http.errors + served.websocket.errors
    found = collections.Counter({"2xx": served.http.count - served.http.errors.total() + sent.completed})
    found["429"] = refused.pop(429, 0) + sent.rate_limited
    found["4xx"] = sum(count for status, count in refused.items() if status < 500)
    found["5xx"] = refused.total() - found["4xx"]
    found["none"] = served.requests - found.total()
    return found


def _retries(served):
    """How often Codex tried again: as its HTTP client does, with another stream over HTTP, over WebSocket."""
    # What Codex tries last, after WebSockets have failed, is a stream over HTTP.
    last = 0 if served.upgrades.refused[UPGRADE_REQUIRED] else served.fallbacks
    by_client = served.http.errors.total() - served.http.errors[429]
    streams = served.http.errors[429] + served.http.cut + last
    return by_client, streams, served.websocket.failed() + served.upgrades.tried_again() - last


def shown(samples):
    """Out of /metrics."""

    def total(name, **wanted):
        match = lambda labels: all(labels.get(label) == value for label, value in wanted.items())
        return sum(value for found, labels, value in samples if found == name and match(labels))

    requests = lambda **labels: total("tacho_api_requests_total", endpoint="/responses", **labels)
    retries = lambda **labels: total("tacho_api_retries_total", **labels)
    answers = lambda **labels: total("tacho_response_duration_seconds_count", **labels)
    upgrades = lambda **labels: total("tacho_websocket_connects_total", **labels)
    policy = total("tacho_approval_decisions_total", decision="approved", source="policy")
    return {
        "requests": requests(),
        "requests over HTTP": requests(transport="http"),
        "requests over WebSocket": requests(transport="websocket"),
        **{f"requests answered {name}": requests(status_class=name) for name in CLASSES},
        "requests failed": answers(outcome="failed"),
        "errors": total("tacho_api_errors_total"),
        "rate limited": total("tacho_api_rate_limited_total"),
        "stream failures": total("tacho_stream_failures_total"),
        "retries": retries(),
        **{name: retries(layer=layer) for name, layer in zip(RETRIES, LAYERS)},
        "responses": total("tacho_response_tokens_count", direction="input"),
        "first tokens": total("tacho_first_token_seconds_count"),
        "upgrades": upgrades(),
        "upgrades refused": upgrades(outcome="refused"),
        "upgrades refused with 426": upgrades(outcome="refused", status_code="426"),
        "upgrades refused in turns": upgrades(outcome="refused", phase="turn"),
        "requests on a used connection": total("tacho_websocket_reused_total", reused="true"),
        "requests on a new connection": total("tacho_websocket_reused_total", reused="false"),
        "fallbacks": total("tacho_websocket_fallbacks_total"),
        "prewarms": total("tacho_prewarm_requests_total"),
        "prewarms completed": total("tacho_prewarm_responses_total", outcome="completed"),
        "prewarms failed": total("tacho_prewarm_responses_total", outcome="failed"),
        "prewarms known by a sign": total("tacho_prewarm_responses_total", basis="sign"),
        "prewarm tokens": total("tacho_prewarm_tokens_total"),
        **{kind: total("tacho_tokens_total", kind=kind) for kind in TOKENS},
        "tool calls": total("tacho_tool_calls_total"),
        "tool failures": total("tacho_tool_calls_total") - total("tacho_tool_calls_total", outcome="success"),
        "nonzero exits": total("tacho_tool_nonzero_exit_total"),
        "approved by policy": policy,
        "other decisions": total("tacho_approval_decisions_total") - policy,
        "turns": total("tacho_turns_total"),
        "sessions": total("tacho_sessions_started_total"),
    }


def of_rows(rows):
    """Out of the rows of some sessions, summed; none of what a row does not hold."""
    found = collections.Counter(sessions=0)
    for row in rows:
        found.update(of_row(row))
    return found


def of_row(row):
    """Out of one."""
    policy = sum(d["count"] for d in row["decisions"] if (d["decision"], d["source"]) == ("approved", "policy"))
    sent = row["websocket"] or collections.Counter()
    warmed = row["prewarm"] or collections.Counter()
    return {
        "requests": row["api_requests"],
        "requests over HTTP": row["api_requests"] - sent["requests"],
        "requests over WebSocket": sent["requests"],
        "requests failed": row["requests_failed"],
        "errors": row["api_errors"],
        "stream failures": row["stream_failures"],
        "retries": row["api_retries"],
        **{name: row[f"api_retries_{layer}"] for name, layer in zip(RETRIES, LAYERS)},
        "responses": row["responses_completed"],
        "upgrades": sent["connects"],
        "upgrades refused": sent["refused"],
        "upgrades refused in turns": sent["refused_in_turns"],
        "requests on a used connection": sent["reused"],
        "requests on a new connection": sent["requests"] - sent["reused"],
        "fallbacks": sent["fallbacks"],
        "prewarms": warmed["requests"],
        "prewarms completed": warmed["completed"],
        "prewarms failed": warmed["failed"],
        "prewarm tokens": sum(warmed[kind] for kind in ("input_uncached", "input_cached", "input_cache_write", "output")),
        **{kind: row["tokens"][kind] for kind in TOKENS},
        "tool calls": row["tool_calls"],
        "tool failures": row["tool_failures"],
        "nonzero exits": row["nonzero_exits"],
        "approved by policy": policy,
        "other decisions": sum(d["count"] for d in row["decisions"]) - policy,
        "turns": row["user_prompts"],
        "sessions": 1,
    }


def in_metrics(scenario, expected_):
    """Facts as /metrics has them at once: without requests whose end Codex does not tell."""
    return {name: value - scenario.open * (name in LATE) for name, value in expected_.items()}


def differences(where, wanted, found, before=collections.Counter()):
    """What of `found`, since `before`, is not as it must be."""
    names = [name for name in wanted if name in found and found[name] != wanted[name]]
    return [f"{where}: {name} is {found[name] - before[name]:g}, not {wanted[name] - before[name]:g}" for name in names]
