"""Kafka brokers on 127.0.0.1 that can be killed and started again, on the jars of the tests."""

import io
import pathlib
import socket
import struct
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLUSTER_ID = "dGFjaG9ncmFwaC10ZXN0cw"
START_SECONDS_MAX = 180
HEAP = "256m"


class Brokers:
    """`count` brokers; with three or more, every topic is on three and two must have a record. The first is the controller too."""

    def __init__(self, work, count):
        jars = subprocess.run([ROOT / ".ci/interop/kafka.sh", "--jars"], capture_output=True, text=True, check=True).stdout.strip()
        logging = f"-Dlog4j2.configurationFile={ROOT}/tests/support/kafka/log4j2.properties"
        self.java = ["java", f"-Xmx{HEAP}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true", logging]
        self.java += ["-cp", f"{jars}/*"]
        self.folders = [pathlib.Path(work) / f"broker-{number}" for number in range(count)]
        self.ports = _free_ports(count + 1)
        self.processes = [None] * count
        replicas = 3 if count >= 3 else 1
        for number, folder in enumerate(self.folders):
            folder.mkdir()
            (folder / "server.properties").write_text(self._properties(number, replicas))
            format_ = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(folder / "server.properties")]
            subprocess.run(self.java + format_, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        try:
            self.start(*range(count))
        except BaseException:
            self.end()
            raise

    @property
    def bootstrap(self):
        return ",".join(f"127.0.0.1:{port}" for port in self.ports[: len(self.folders)])

    def start(self, *numbers):
        """Starts them, and returns once they serve."""
        for number in numbers:
            folder = self.folders[number]
            with open(folder / "server.log", "w", encoding="utf-8") as log:
                command = [*self.java, "kafka.Kafka", str(folder / "server.properties")]
                self.processes[number] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        began = time.monotonic()
        for number in numbers:
            path = self.folders[number] / "server.log"
            while "Kafka Server started" not in path.read_text(encoding="utf-8"):
                if self.processes[number].poll() is not None or time.monotonic() - began > START_SECONDS_MAX:
                    raise RuntimeError(f"broker {number} did not start:\n{path.read_text(encoding='utf-8')[-3000:]}")
                time.sleep(0.1)

    def kill(self, number):
        """SIGKILL; what it has on disk stays."""
        self.processes[number].kill()
        self.processes[number].wait()

    def wait_in_sync(self):
        """Returns once every partition has all of its replicas: another broker may go."""
        began = time.monotonic()
        while any(in_sync < replicas for replicas, in_sync in _replicas(self.ports[0])):
            if time.monotonic() - began > START_SECONDS_MAX:
                raise RuntimeError("a broker does not catch up")
            time.sleep(0.1)

    def end(self):
        for process in self.processes:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

    def _properties(self, number, replicas):
        port, controller = self.ports[number], self.ports[-1]
        first = number == 0
        return f"""process.roles={"broker,controller" if first else "broker"}
node.id={number}
controller.quorum.voters=0@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port}{f",CONTROLLER://127.0.0.1:{controller}" if first else ""}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={self.folders[number]}/data
auto.create.topics.enable=false
default.replication.factor={replicas}
min.insync.replicas={max(1, replicas - 1)}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={max(1, replicas - 1)}
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=250
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=8388608
"""


def _replicas(port):
    """Of every partition: how many replicas it has, and how many are in sync. A Metadata request, version 1."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        # Key, version, number, the client's name; all topics.
        request = struct.pack(">hhihi", 3, 1, 0, -1, -1)
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as stream:
            (size,) = struct.unpack(">i", stream.read(4))
            answer = io.BytesIO(stream.read(size))
    number = lambda form: struct.unpack(form, answer.read(struct.calcsize(form)))[0]
    text = lambda: answer.read(max(number(">h"), 0))
    number(">i")
    for _ in range(number(">i")):
        # A broker: id, host, port, rack.
        number(">i"), text(), number(">i"), text()
    number(">i")
    for _ in range(number(">i")):
        # A topic: error, name, whether it is internal.
        number(">h"), text(), number(">?")
        for _ in range(number(">i")):
            # A partition: error, number, leader; its replicas, and those in sync.
            number(">h"), number(">i"), number(">i")
            lists = [[number(">i") for _ in range(number(">i"))] for _ in range(2)]
            yield len(lists[0]), len(lists[1])


def _free_ports(count):
    """Bound and let go: the kernel does not give out a port again soon."""
    bound = [socket.socket() for _ in range(count)]
    for each in bound:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in bound]
    for each in bound:
        each.close()
    return ports
