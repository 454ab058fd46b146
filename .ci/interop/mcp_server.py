"""A server of two MCP tools on stdin and stdout: one says what it is told, one fails."""

import json
import sys

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": False}


def tool(name):
    return {"name": name, "description": name, "inputSchema": SCHEMA, "annotations": {"readOnlyHint": True}}


def answer(method, params):
    match method:
        case "initialize":
            info = {"name": "demo", "version": "1"}
            return {"protocolVersion": params.get("protocolVersion", "2025-06-18"), "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            return {"tools": [tool("echo_tool"), tool("fail_tool")]}
        case "tools/call":
            text = str(params.get("arguments", {}).get("text"))
            return {"content": [{"type": "text", "text": text}], "isError": params["name"] == "fail_tool"}
        case "resources/list":
            return {"resources": []}
        case "resources/templates/list":
            return {"resourceTemplates": []}
        case "prompts/list":
            return {"prompts": []}
    return {}


for line in sys.stdin:
    message = json.loads(line)
    # A notification has no answer.
    if "id" in message:
        result = answer(message.get("method"), message.get("params") or {})
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
