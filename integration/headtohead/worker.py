"""A process of kazoo workers and producers, the counterpart of zkqClient: one client, a LockingQueue object and a
thread for each worker, a thread for each producer.

The argument is its configuration (JSON). What it does goes into its journal, what it is told comes by stdin.
"""
import json
import os
import random
import sys
import threading
import time

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.retry import KazooRetry, RetryFailedError

ERRORS = (KazooException, KazooTimeoutError, RetryFailedError)

config = json.loads(sys.argv[1])
journal = os.open(config["journal"], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
quick = dict(max_tries=-1, max_delay=1)
client = KazooClient(hosts=",".join(config["servers"]), timeout=config["session"],
                     connection_retry=quick, command_retry=quick)
# As the documentation shows it: the call again, on a lost connection as on a lost session.
retry = KazooRetry(deadline=config["patience"], **quick)

is_open = threading.Event()
lock = threading.Lock()
putting = 0  # puts that have not ended
held = 0     # entries whose finish has not ended
turns = {}   # when each worker last began to wait for an entry


def write(act, queue, **fields):
    line = dict(t=time.time_ns(), a=act, q=queue, **fields)
    os.write(journal, json.dumps(line).encode() + b"\n")


def count(p, h):
    global putting, held
    with lock:
        putting += p
        held += h


def produce(number, n):
    queue = client.LockingQueue(config["root"] + config["queues"][n])
    for i in range(1 << 60):
        time.sleep(random.uniform(*config["pause"]))
        if not is_open.is_set():
            continue
        value = "%s/%d/%d" % (config["name"], number, i)
        write("putting", n, v=value)
        count(1, 0)
        try:
            retry.copy()(queue.put, value.encode())
        except ERRORS as e:
            write("put", n, v=value, o="unknown", e=repr(e))
        else:
            write("put", n, v=value, o="ok")
        count(-1, 0)


def work(n):
    queue = client.LockingQueue(config["root"] + config["queues"][n])
    while True:
        turns[n] = time.monotonic()
        try:
            value = queue.get(timeout=config["wait"])
        except ERRORS as e:
            write("note", n, e="get: " + repr(e))
            time.sleep(0.05)
            continue
        if value is None:
            continue
        count(0, 1)
        name = queue.processing_element[0]
        write("took", n, h=queue.id.decode(), n=name, v=value.decode())
        time.sleep(random.uniform(*config["work"]))
        write("finishing", n, h=queue.id.decode(), n=name)
        try:
            outcome, error = "ok" if retry.copy()(queue.consume) else "lost", ""
        except NoNodeError as e:
            outcome, error = "lost", repr(e)
        except ERRORS as e:
            outcome, error = "unknown", repr(e)
        write("finished", n, h=queue.id.decode(), n=name, o=outcome, e=error)
        if outcome != "ok":  # or it would hand out the old entry for ever
            queue = client.LockingQueue(config["root"] + config["queues"][n])
        count(0, -1)


client.start(timeout=30)
for n in range(len(config["queues"])):
    threading.Thread(target=work, args=(n,), daemon=True).start()
for number, n in enumerate(config["puts"]):
    threading.Thread(target=produce, args=(number, n), daemon=True).start()
print("ready", flush=True)
for line in iter(sys.stdin.readline, ""):
    if line == "go\n":
        is_open.set()
    elif line == "hold\n":
        is_open.clear()
    elif line == "state\n":
        late = sum(time.monotonic() - t > config["hung"] for t in list(turns.values()))
        print(json.dumps(dict(putting=putting, held=held, hung=late)), flush=True)
        continue
    print(line.strip(), flush=True)
client.stop()
os._exit(0)  # threads of kazoo's own may wait for ever
