"""A running tacho: started on free ports, scraped, read, and ended."""

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? ([^ ]+)(?: -?\d+)?$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
END_SECONDS_MAX = 10
# A new cluster makes its internal topics first.
READY_SECONDS_MAX = 60


class Tacho:
    """`tacho` on a directory, or on a cluster with `--kafka` among the flags; on `http` and `admin`, or on free ports."""

    def __init__(self, binary, data, log, flags=(), http="127.0.0.1:0", admin="127.0.0.1:0"):
        self.binary = binary
        self.flags = [f"--data={data}"] if not flags else list(flags)
        grpc = free_address()
        ports = ["--http", http, "--grpc", grpc, "--admin", admin]
        self.process = subprocess.Popen(
            [binary, f"--data={data}", *flags, *ports], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
        )
        said = ""
        for line in self.process.stdout:
            said += line
            if "Ctrl-C" in line:
                break
        otlp = re.search(r'"(http://[^"]+)/v1/logs"', said)
        admin = re.search(r"^ +metrics +(http://\S+)/metrics$", said, re.MULTILINE)
        if not otlp or not admin:
            self.process.kill()
            raise RuntimeError(f"tacho did not start; it said:\n{said}")
        self.admin = admin[1]
        # Where Codex sends to, by protocol.
        self.otlp = {"binary": otlp[1], "json": otlp[1], "grpc": f"http://{grpc}"}

    def wait_ready(self):
        """Returns once all state is restored and records are taken."""
        began = time.monotonic()
        while time.monotonic() - began < READY_SECONDS_MAX:
            try:
                with urllib.request.urlopen(f"{self.admin}/readyz", timeout=10):
                    return
            except urllib.error.HTTPError:
                time.sleep(0.1)
        raise RuntimeError(f"tacho is not ready after {READY_SECONDS_MAX} s")

    def totals(self):
        """Every sample of /metrics: (name, labels, value)."""
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        samples = []
        for line in text.splitlines():
            if found := SAMPLE.match(line):
                samples.append((found[1], dict(LABEL.findall(found[2] or "")), float(found[3])))
        return samples

    def sessions(self):
        """The latest row of each session, by conversation."""
        command = [self.binary, "read", "codex.sessions.v1", "--json", *self.flags]
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        if ran.returncode != 0:
            raise RuntimeError(f"tacho read ended with {ran.returncode}: {ran.stderr}")
        rows = {}
        for line in ran.stdout.splitlines():
            record = json.loads(line)
            row = record.get("value", record)
            rows[row["conversation_id"]] = row
        return rows

    def kill(self):
        """SIGKILL: whatever it was doing stops there."""
        self.process.kill()
        self.process.wait()

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise RuntimeError(f"tacho did not end within {END_SECONDS_MAX} s of SIGTERM") from None


def free_address():
    """Bound and let go: the kernel does not give out a port again soon."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"
