"""One of kazoo's queues, told what to do by lines of JSON on stdin; each is answered by one line on stdout.

Arguments: the servers, Queue or LockingQueue, the queue's path, the session's time-out in seconds. The end of
stdin ends the session in order.
"""
import base64
import json
import sys
import threading
import time

from kazoo.client import KazooClient

hosts, kind, path, timeout = sys.argv[1:]
client = KazooClient(hosts=hosts, timeout=float(timeout))
client.start()
queue = getattr(client, kind)(path)


def say(**answer):
    print(json.dumps(answer), flush=True)


def raw(text):
    return base64.b64decode(text or "")


def stop_after_look(finish):
    """Runs kazoo's own finish, stopped between its look at the lock and the transaction, until the next line."""
    look = queue.holds_lock

    def look_and_stop():
        held = look()
        say(bool=held)
        sys.stdin.readline()
        while not client.connected:  # its session may have ended meanwhile
            time.sleep(0.01)
        return held

    queue.holds_lock = look_and_stop
    try:
        return finish()
    finally:
        del queue.holds_lock


class Told(threading.Event):
    """Says so when somebody begins to wait for it."""

    def wait(self, timeout=None):
        if not self.is_set():
            say(text="waits")
        return super().wait(timeout)


def get_and_say_when_it_waits(timeout):
    client.handler.event_object = Told
    try:
        return queue.get(timeout)
    finally:
        del client.handler.event_object


acts = {
    "put": lambda c: queue.put(raw(c["value"]), c["priority"]),
    "put_all": lambda c: queue.put_all([raw(v) for v in c["values"]], c["priority"]),
    "get": lambda c: queue.get(c["timeout"]) if kind == "LockingQueue" else queue.get(),
    "waiting_get": lambda c: get_and_say_when_it_waits(c["timeout"]),
    "consume": lambda c: queue.consume(),
    "release": lambda c: queue.release(),
    "holds_lock": lambda c: queue.holds_lock(),
    "slow_consume": lambda c: stop_after_look(queue.consume),
    "slow_release": lambda c: stop_after_look(queue.release),
    "len": lambda c: len(queue),
    "session": lambda c: client.client_id[0],
    "holder": lambda c: queue.id,
}

say(text="ready")
for line in iter(sys.stdin.readline, ""):
    command = json.loads(line)
    try:
        result = acts[command["act"]](command)
    except Exception as e:
        say(error=type(e).__name__ + ": " + str(e))
        continue
    if result is None:
        say()
    elif isinstance(result, bytes):
        say(bytes=base64.b64encode(result).decode())
    elif isinstance(result, bool):
        say(bool=result)
    else:
        say(int=result)
client.stop()
