"""Leads `codex app-server` as an editor would: JSON-RPC, one message a line, over its stdin and stdout."""

import contextlib
import dataclasses
import json
import subprocess
import time

from codex import limited

RUN_SECONDS_MAX = 240


@dataclasses.dataclass(frozen=True)
class Editor:
    """Who sits before it: what they answer when Codex asks for leave, how many turns they interrupt, how long they wait before
    each prompt, and how long they stay."""

    decision: str = "accept"
    interrupts: int = 0
    waits_seconds: float = 0.0
    stays_seconds: float = 0.0


class AppServer:
    """One process, with one thread."""

    def __init__(self, codex, editor):
        self.codex, self.editor = codex, editor
        self.number, self.ended = 0, 0

    def play(self, prompts, requests):
        """A turn for each prompt. An editor that interrupts does when the model was asked; `requests` says how often it was."""
        command = [self.codex.binary, "app-server"]
        self.process = self.codex.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        with limited(self.process, RUN_SECONDS_MAX):
            self.ask("initialize", clientInfo={"name": "interop", "title": "Interop", "version": "1"})
            self.send(method="initialized")
            begun = self.ask("thread/start", cwd=str(self.codex.cwd), approvalPolicy="on-request", sandbox="workspace-write")
            thread = begun["thread"]["id"]
            for number, prompt in enumerate(prompts):
                time.sleep(self.editor.waits_seconds)
                turn = self.ask("turn/start", threadId=thread, input=[{"type": "text", "text": prompt}])["turn"]["id"]
                if number < self.editor.interrupts:
                    while requests() <= number:
                        time.sleep(0.05)
                    time.sleep(0.5)
                    self.ask("turn/interrupt", threadId=thread, turnId=turn)
                while self.ended <= number:
                    self.read()
            time.sleep(self.editor.stays_seconds)
            last = time.monotonic()
            self.process.stdin.close()
            with contextlib.suppress(RuntimeError):
                while True:
                    self.read()
            if self.process.wait() != 0:
                raise RuntimeError(f"codex app-server ended with {self.process.returncode}")
        self.codex.exit_seconds = time.monotonic() - last

    def send(self, **message):
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def ask(self, method, **params):
        """Sends a request, and reads until its answer."""
        self.number += 1
        self.send(id=self.number, method=method, params=params)
        while (message := self.read()).get("id") != self.number or "method" in message:
            pass
        if "error" in message:
            raise RuntimeError(f"codex app-server refuses {method}: {message['error']}")
        return message["result"]

    def read(self):
        """One message; what Codex asks for is answered, the ends of turns are counted."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("codex app-server says no more")
        message = json.loads(line)
        method = message.get("method", "")
        if "id" in message and method.endswith("requestApproval"):
            self.send(id=message["id"], result={"decision": self.editor.decision})
        self.ended += method == "turn/completed"
        return message
