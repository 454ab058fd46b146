"""Runs the real Codex CLI, offline: its model is the fake one, and every other address is a dead proxy."""

import json
import os
import pathlib
import subprocess

RUN_SECONDS_MAX = 120
BYPASS = "--dangerously-bypass-approvals-and-sandbox"


class Codex:
    """A Codex home of its own, with telemetry that goes to `otlp` (http://host:port) in `protocol` (binary, json, grpc)."""

    def __init__(self, binary, home, model_port, otlp, protocol):
        self.binary = binary
        self.home = pathlib.Path(home)
        self.cwd = self.home / "project"
        for folder in ("codex", "user", "project"):
            (self.home / folder).mkdir(parents=True)
        (self.home / "codex" / "config.toml").write_text(_config(model_port, otlp, protocol, self.cwd))
        dead = "http://127.0.0.1:9"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home / "user"),
            "CODEX_HOME": str(self.home / "codex"),
            "FAKE_KEY": "not-a-key",
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "OTEL_RESOURCE_ATTRIBUTES": "team.id=interop,project=tachograph",
        }
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            self.env[name] = self.env[name.lower()] = dead

    def version(self):
        out = subprocess.run([self.binary, "--version"], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        return out.stdout.split()[-1]

    def turn(self, prompt, resume=False):
        """One `codex exec`; gives the conversation's id."""
        command = [self.binary, "exec"] + (["resume", "--last"] if resume else []) + [BYPASS, "--skip-git-repo-check", "--json", prompt]
        ran = subprocess.run(
            command, cwd=self.cwd, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=RUN_SECONDS_MAX
        )
        if ran.returncode != 0:
            raise RuntimeError(f"codex exec ended with {ran.returncode}:\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
        for line in ran.stdout.splitlines():
            if line.startswith("{") and (message := json.loads(line)).get("type") == "thread.started":
                return message["thread_id"]
        raise RuntimeError(f"codex exec named no conversation:\n{ran.stdout[-2000:]}")


def _config(model_port, otlp, protocol, cwd):
    def exporter(signal):
        if protocol == "grpc":
            return f'{{ otlp-grpc = {{ endpoint = "{otlp}" }} }}'
        return f'{{ otlp-http = {{ endpoint = "{otlp}/v1/{signal}", protocol = "{protocol}" }} }}'

    return f"""model = "gpt-5.5"
model_provider = "fake"
check_for_update_on_startup = false
chatgpt_base_url = "http://127.0.0.1:{model_port}/"

[features]
plugins = false
apps = false

[analytics]
enabled = false

[model_providers.fake]
name = "fake"
base_url = "http://127.0.0.1:{model_port}/v1"
wire_api = "responses"
env_key = "FAKE_KEY"

[otel]
environment = "interop"
log_user_prompt = true
exporter = {exporter("logs")}
trace_exporter = {exporter("traces")}
metrics_exporter = {exporter("metrics")}

[projects.{json.dumps(str(cwd))}]
trust_level = "trusted"
"""
