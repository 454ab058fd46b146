"""Runs the real Codex CLI, offline: its model is the fake one, and every other address is a dead proxy."""

import base64
import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import threading
import time

# How it sends telemetry.
PROTOCOLS = ("binary", "json", "grpc")
RUN_SECONDS_MAX = 120
# What a program that runs with another /etc must find there.
ETC = ("group", "hosts", "ld.so.cache", "nsswitch.conf", "os-release", "passwd", "resolv.conf")
BYPASS = "--dangerously-bypass-approvals-and-sandbox"


@dataclasses.dataclass(frozen=True)
class Config:
    """What Codex is told beside where model and telemetry are."""

    model: str = "gpt-5.5"
    # Lines of config.toml: on top, of the model's provider, of [otel]; and tables.
    top: str = ""
    provider: str = ""
    # Codex has the provider `openai` by itself: its user is signed in there with "chatgpt" or an "api key".
    sign_in: str = ""
    otel: str = ""
    tables: str = ""
    # Whether Codex logs what its user asks.
    prompts: bool = True
    # Files of the Codex home, as (path, text).
    files: tuple = ()
    # Flags of `codex exec`.
    flags: tuple = (BYPASS,)


class Codex:
    """A Codex home of its own, with `otel` as the last part of its config.toml: see `exporters`. `etc`: what is in /etc/codex
    for it, by name; in a mount namespace of its own, so that the machine's stays as it is."""

    def __init__(self, binary, home, model_port, otel, etc=None, config=Config()):
        self.binary = binary
        self.etc = etc
        self.flags = config.flags
        # How long the last process took to end after its last word.
        self.exit_seconds = 0.0
        self.home = pathlib.Path(home)
        self.cwd = self.home / "project"
        for folder in ("codex", "user", "project"):
            (self.home / folder).mkdir(parents=True)
        (self.home / "codex" / "config.toml").write_text(_config(model_port, otel, self.cwd, config))
        for name, text in config.files:
            (self.home / "codex" / name).parent.mkdir(parents=True, exist_ok=True)
            (self.home / "codex" / name).write_text(text)
        if config.sign_in:
            (self.home / "codex" / "auth.json").write_text(json.dumps(_signed_in(config.sign_in)))
        if etc is not None:
            self._write_etc(etc)
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

    def _write_etc(self, files):
        (self.home / "etc/codex").mkdir(parents=True)
        for name in ETC:
            if os.path.exists(f"/etc/{name}"):
                subprocess.run(["cp", "-rL", f"/etc/{name}", self.home / "etc"], check=True)
        for name, text in files.items():
            (self.home / "etc/codex" / name).write_text(text)

    def run(self, prompt, resume=False, flags=()):
        """One `codex exec`, however it ends."""
        command = [self.binary, "exec"] + (["resume", "--last"] if resume else [])
        command += [*self.flags, "--skip-git-repo-check", "--json", *flags, prompt]
        if self.etc is not None:
            command = ["unshare", "-rm", "sh", "-c", 'mount --bind "$0" /etc && exec "$@"', self.home / "etc", *command]
        with open(self.home / "stderr", "w+", encoding="utf-8") as errors:
            process = self.start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
            with limited(process):
                said, last = [], time.monotonic()
                for line in process.stdout:
                    said.append(line)
                    last = time.monotonic()
                process.wait()
            self.exit_seconds = time.monotonic() - last
            errors.seek(0)
            return subprocess.CompletedProcess(command, process.returncode, "".join(said), errors.read())

    def start(self, command, **streams):
        """A process in this home, in the project's folder."""
        return subprocess.Popen(command, cwd=self.cwd, env=self.env, **streams)

    def turn(self, prompt, resume=False, flags=()):
        """One `codex exec` that ends well; gives the conversation's id."""
        ran = self.run(prompt, resume, flags)
        self.said = ran.stderr
        if ran.returncode != 0:
            raise RuntimeError(f"codex exec ended with {ran.returncode}:\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
        for line in ran.stdout.splitlines():
            if line.startswith("{") and (message := json.loads(line)).get("type") == "thread.started":
                return message["thread_id"]
        raise RuntimeError(f"codex exec named no conversation:\n{ran.stdout[-2000:]}")


@contextlib.contextmanager
def limited(process, seconds=RUN_SECONDS_MAX):
    """A process that takes longer than the block may is killed."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()


def version(binary):
    """As `codex --version` says it."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    out = subprocess.run([binary, "--version"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return out.stdout.split()[-1]


def exporters(otlp, protocol, prompts=True):
    """Telemetry that goes to `otlp` (http://host:port, or one for each signal) in `protocol` (binary, json, grpc)."""

    def exporter(signal):
        to = otlp if isinstance(otlp, str) else otlp[signal]
        if protocol == "grpc":
            return f'{{ otlp-grpc = {{ endpoint = "{to}" }} }}'
        return f'{{ otlp-http = {{ endpoint = "{to}/v1/{signal}", protocol = "{protocol}" }} }}'

    return f"""[otel]
environment = "interop"
log_user_prompt = {str(prompts).lower()}
exporter = {exporter("logs")}
trace_exporter = {exporter("traces")}
metrics_exporter = {exporter("metrics")}
"""


def _signed_in(how):
    """What Codex keeps of a sign-in; nobody looks at the signature."""
    if how == "api key":
        return {"OPENAI_API_KEY": "not-a-key"}
    now = time.time()
    ids = {"chatgpt_plan_type": "pro", "chatgpt_user_id": "user-1", "chatgpt_account_id": "account-1", "user_id": "user-1"}
    claims = {"iss": "https://auth.example.com", "sub": "user-1", "iat": int(now), "exp": int(now) + 10 * 86400, "email": "dev@example.com"}
    parts = [{"alg": "none", "typ": "JWT"}, {**claims, "https://api.openai.com/auth": ids}]
    token = ".".join([base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts] + ["bm9uZQ"])
    tokens = {"id_token": token, "access_token": token, "refresh_token": "not-a-token", "account_id": "account-1"}
    return {"OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))}


def _config(model_port, otel, cwd, config):
    provider = f'"openai"\nopenai_base_url = "http://127.0.0.1:{model_port}/v1"' if config.sign_in else '"fake"'
    return f"""model = "{config.model}"
model_provider = {provider}
check_for_update_on_startup = false
chatgpt_base_url = "http://127.0.0.1:{model_port}/"
{config.top}

[features]
plugins = false
apps = false
daemon_auto_start = false

[analytics]
enabled = false

[model_providers.fake]
name = "fake"
base_url = "http://127.0.0.1:{model_port}/v1"
wire_api = "responses"
env_key = "FAKE_KEY"
{config.provider}

[projects.{json.dumps(str(cwd))}]
trust_level = "trusted"

{config.tables}

{otel}{config.otel}
"""
