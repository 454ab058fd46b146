"""The events of an answer of the Responses API, whatever they go over."""

import json
import time

from script import RATE_LIMIT, Call

LIMIT = "websocket_connection_limit_reached"
MESSAGES = {LIMIT: "Responses websocket connection limit reached (60 minutes). Create a new websocket connection to continue."}


def answer(channel, number, step, agent):
    """Tells a step, which is no error, to who asked. A channel has `event`, `end`, `cut` and `fall_silent`."""
    response = {"id": f"resp_{number}"}
    channel.event("response.created", response=response)
    time.sleep(step.delay_seconds)
    if step.silent:
        return channel.fall_silent()
    if step.failed:
        error = {"code": step.failed, "message": "Rate limit reached. Please try again in 1s."}
        channel.event("response.failed", response=dict(response, status="failed", error=error, usage=None))
        return channel.end()
    for index, item in enumerate(_items(number, step, agent)):
        begun = dict(item, content=[]) if item["type"] == "message" else item
        channel.event("response.output_item.added", output_index=index, item=begun)
        if item["type"] == "message":
            for piece in step.text if step.letters else (step.text,):
                channel.event("response.output_text.delta", item_id=item["id"], output_index=index, delta=piece)
        if step.cut:
            return channel.cut(step.farewell)
        channel.event("response.output_item.done", output_index=index, item=item)
    channel.event("response.completed", response=dict(response, usage=usage(step.usage)))
    return channel.end()


def error(step):
    """What is wrong, and headers."""
    if step.status == 429:
        return {"type": RATE_LIMIT, "code": RATE_LIMIT, "message": "try again in 1s"}, {"retry-after": "1"}
    kind = "invalid_request_error" if step.status < 500 else "server_error"
    return {"type": kind, "code": step.code or None, "message": MESSAGES.get(step.code, "made up")}, {}


def usage(use):
    return {
        "input_tokens": use.input,
        "input_tokens_details": {"cached_tokens": use.cached},
        "output_tokens": use.output,
        "output_tokens_details": {"reasoning_tokens": use.reasoning},
        "total_tokens": use.input + use.output,
    }


def _message(number, text):
    content = [{"type": "output_text", "text": text}]
    return {"type": "message", "role": "assistant", "id": f"msg_{number}", "phase": "final_answer", "content": content}


def _items(number, step, agent):
    """What the answer consists of."""
    items = []
    if step.reasoning:
        summary = [{"type": "summary_text", "text": step.reasoning}]
        items.append({"type": "reasoning", "id": f"rs_{number}", "summary": summary, "encrypted_content": "bm9uZQ=="})
    calls = [Call("exec_command", {"cmd": command}) for command in step.commands] + list(step.calls)
    items += [_call(f"{number}_{index}", call, agent) for index, call in enumerate(calls)]
    return items + ([_message(number, step.text)] if step.text else [])


def _call(name, call, agent):
    ids = {"id": f"fc_{name}", "call_id": f"call_{name}", "name": call.name}
    if call.custom:
        return {"type": "custom_tool_call", **ids, "input": call.arguments}
    text = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
    namespace = {"namespace": call.namespace} if call.namespace else {}
    return {"type": "function_call", **ids, "arguments": text.replace("$AGENT", agent), **namespace}
