#!/usr/bin/env python3
"""A real Prometheus scrapes tacho with the shipped configuration, while tacho is killed again and again.

A ledger of records is sent in two parts; tacho dies by SIGKILL in the middle of each, several times. During the second
part another target shows the results of the first one's end over and over, as a process does that was paused and has
lost its partitions. Afterwards every count by subtraction must equal the ledger's part, nothing may have been reset, and
native and classic histograms must agree. Ends with 1 at the first difference.
"""

import argparse
import contextlib
import http.server
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from ledger import Ledger, send
from prometheus_check import Prometheus, check, counts
from tacho import Tacho, free_address

SHIPPED = pathlib.Path(__file__).resolve().parents[2] / "deploy/prometheus/prometheus.yml"
CONVERSATIONS = 400
SEEDS = (1, 2)
KILLS = 3
# After the last answer: the worker's commit, a scrape, and a slow machine.
SETTLE_SECONDS_MAX = 30
DIFFERENCES_SHOWN_MAX = 30
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
REFUSED = "prometheus_target_scrapes_sample_out_of_order_total"
# Quantiles of the last final window are gauges: a summary would have a count and a sum beside them.
LINT_KNOWN = re.compile(r'tacho_\w+_window_seconds non-summary metrics should not have "quantile" label|')
# Then it must stay as it is: a mark of the idle log, and more scrapes.
STAY_SECONDS = 12
START_SECONDS_MAX = 30


def shipped_config(targets):
    """The shipped scrape configuration, with other addresses and a shorter interval, and nothing else changed."""
    text = SHIPPED.read_text(encoding="utf-8")
    for old, new in (('["127.0.0.1:9464"]', json.dumps(targets)), ("scrape_interval: 15s", "scrape_interval: 1s")):
        if text.count(old) != 1:
            raise RuntimeError(f"{SHIPPED} does not hold {old!r} exactly once")
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def running_prometheus(binary, work, targets):
    """A Prometheus that scrapes `targets`; gives its address."""
    config, address = work / "prometheus.yml", free_address()
    config.write_text(shipped_config(targets), encoding="utf-8")
    command = [binary, f"--config.file={config}", f"--storage.tsdb.path={work / 'tsdb'}", f"--web.listen-address={address}"]
    with open(work / "prometheus.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=work)
        try:
            began = time.monotonic()
            while True:
                try:
                    with urllib.request.urlopen(f"http://{address}/-/ready", timeout=1):
                        break
                except OSError:
                    if process.poll() is not None or time.monotonic() - began > START_SECONDS_MAX:
                        raise RuntimeError(f"Prometheus did not start:\n{(work / 'prometheus.log').read_text()[-3000:]}") from None
                    time.sleep(0.1)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait()


class Zombie:
    """A target that shows, from `remember` on, what another one showed then; until then it is not there (503)."""

    def __init__(self):
        zombie = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                body = zombie.body
                self.send_response(200 if body else 503)
                self.send_header("Content-Type", zombie.content_type)
                self.end_headers()
                self.wfile.write(body)

        self.body, self.content_type = b"", "text/plain"
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = "127.0.0.1:%d" % self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def remember(self, admin):
        request = urllib.request.Request(f"http://{admin}/metrics", headers={"Accept": PROTOBUF})
        with urllib.request.urlopen(request, timeout=10) as answer:
            self.content_type, self.body = answer.headers["Content-Type"], answer.read()

    def end(self):
        self._server.shutdown()


class Victim:
    """A tacho at fixed addresses, killed and started again."""

    def __init__(self, binary, work):
        self.binary, self.data = binary, work / "data"
        self.log = open(work / "tacho.log", "a", encoding="utf-8")
        self.http, self.admin = free_address(), free_address()
        self.kills = 0
        self.tacho = self._start()

    def _start(self):
        tacho = Tacho(self.binary, self.data, self.log, http=self.http, admin=self.admin)
        tacho.wait_ready()
        return tacho

    def kill_and_start(self):
        self.tacho.kill()
        self.kills += 1
        self.tacho = self._start()

    def end(self):
        if self.tacho.process.poll() is None:
            self.tacho.kill()
        self.log.close()


def send_and_kill(ledger, victim):
    """Sends the ledger; kills in between, when so many records are in."""
    progress, failed = threading.Semaphore(0), []
    due = [len(ledger.records) * (number + 1) // (KILLS + 1) for number in range(KILLS)]

    def reached(sent):
        while due and sent >= due[0]:
            due.pop(0)
            progress.release()

    def sender():
        try:
            send(ledger, [f"http://{victim.http}"], reached)
        except RuntimeError as error:
            failed.append(error)
            for _ in range(KILLS):
                progress.release()

    thread = threading.Thread(target=sender)
    thread.start()
    for _ in range(KILLS):
        progress.acquire()
        if not failed:
            victim.kill_and_start()
    thread.join()
    if failed:
        raise failed[0]


def settled(prometheus, expected, t1):
    """Waits until the counts are right; gives the instant, or the differences that are left."""
    began = time.monotonic()
    while True:
        now = time.time()
        _, wrong = counts(prometheus, expected, t1, now)
        if not wrong or time.monotonic() - began > SETTLE_SECONDS_MAX:
            return now, wrong
        time.sleep(0.5)


def refused(address):
    """What Prometheus did not take of scrapes, by its own counters, without zeros: older samples, for example."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith("prometheus_target_scrapes_") and not line.endswith(" 0"):
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
    return found


def own_resets(prometheus, began):
    """How often the process's own counters were reset: what this run would find of results, if they died with it too."""
    now = time.time()
    return prometheus.one(f"max(resets(tacho_ingest_requests_total[{int(now - began) + 1}s]))", now) or 0


def lint(promtool, admin):
    """Lints the text format; gives what promtool says against it."""
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as answer:
        body = answer.read()
    ran = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True)
    said = (ran.stdout + ran.stderr).decode().splitlines()
    wrong = sorted({line for line in said if not LINT_KNOWN.fullmatch(line)})
    # 3: it could read everything, and remarks follow.
    if ran.returncode not in (0, 3) and not wrong:
        wrong.append(f"promtool ended with {ran.returncode}")
    return wrong


def part(number, seed, victim, prometheus, began, run):
    """One part of the ledger: sent, settled, compared. Gives the differences."""
    ledger, t1 = Ledger(seed, CONVERSATIONS, f"prometheus-{run}"), time.time()
    send_and_kill(ledger, victim)
    expected = ledger.expected()
    settled_at, wrong = settled(prometheus, expected, t1)
    after = settled_at - t1
    if not wrong:
        time.sleep(STAY_SECONDS)
        said, wrong = check(prometheus, expected, t1, time.time(), began)
        print(f"{'FAILED' if wrong else 'ok'}: part {number}, {len(ledger.records)} records, {KILLS} kills ({after:.1f} s): {said}", flush=True)
    else:
        print(f"FAILED: part {number}, {len(ledger.records)} records, {KILLS} kills ({after:.1f} s)", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tacho", required=True, help="the tacho binary")
    parser.add_argument("--prometheus", required=True, help="the prometheus binary")
    parser.add_argument("--promtool", required=True, help="the promtool binary")
    options = parser.parse_args()
    wrong = []
    with tempfile.TemporaryDirectory(prefix="tacho-interop-") as work:
        work = pathlib.Path(work)
        victim, zombie = Victim(options.tacho, work), Zombie()
        try:
            with running_prometheus(options.prometheus, work, [victim.admin, zombie.address]) as address:
                prometheus, began = Prometheus(address), time.time()
                version = prometheus.api("status/buildinfo")["version"] or "of unknown version"
                print(f"prometheus {version} at {address}, tacho at http://{victim.admin}", flush=True)
                for number, seed in enumerate(SEEDS):
                    wrong += part(number + 1, seed, victim, prometheus, began, int(began))
                    if wrong:
                        break
                    zombie.remember(victim.admin)
                own = own_resets(prometheus, began)
                print(f"{'ok' if own else 'FAILED'}: the process's own counters were reset {own:g} times, by {victim.kills} kills", flush=True)
                if not own:
                    wrong.append("Prometheus saw none of the kills in the process's own counters: this run proves nothing")
                remarks = lint(options.promtool, victim.admin)
                print(f"{'FAILED' if remarks else 'ok'}: promtool check metrics", flush=True)
                wrong += [f"promtool check metrics: {remark}" for remark in remarks]
                counters = refused(address)
                old = counters.pop(REFUSED, 0)
                print(f"{'ok' if old else 'FAILED'}: Prometheus refused {old:g} samples of the target that shows old results", flush=True)
                if not old:
                    wrong.append("Prometheus refused no old sample: that target proves nothing")
                for name, value in counters.items():
                    print(f"note: {name} {value:g}")
        finally:
            victim.end()
            zombie.end()
        if wrong:
            print("the end of tacho's log:", (work / "tacho.log").read_text(encoding="utf-8")[-2000:], sep="\n")
    for line in wrong[:DIFFERENCES_SHOWN_MAX]:
        print(f"  {line}")
    if len(wrong) > DIFFERENCES_SHOWN_MAX:
        print(f"  and {len(wrong) - DIFFERENCES_SHOWN_MAX} more")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
