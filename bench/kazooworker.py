"""kazoo's LockingQueue at work: a client, and a LockingQueue object for each of its threads.

Arguments: the servers, the queue's path, what to do ("work", "both"), threads, and for "both" how many values each of
as many putting threads puts. It says "ready", waits for a line, works until the next one or until nothing comes, says
now and then how many entries it has finished, and at the end in how many seconds: lines of JSON.
"""
import json
import os
import sys
import threading
import time

from kazoo.client import KazooClient

hosts, path, act, threads, puts = sys.argv[1:]
client = KazooClient(hosts=hosts, timeout=10.0)
client.start(timeout=30)
done = [(0, 0.0)] * int(threads)  # entries, and when the last was finished
stop = threading.Event()
value = b"." * 100


def work(i, queue):
    n = 0
    while not stop.is_set():
        if queue.get(timeout=1) is None:
            continue
        if queue.consume():
            n += 1
            done[i] = (n, time.monotonic() - begun)


def put(queue):
    for _ in range(int(puts)):
        queue.put(value)


queues = [client.LockingQueue(path) for _ in done]
putters = [client.LockingQueue(path) for _ in done] if act == "both" else []
print("ready", flush=True)
sys.stdin.readline()
begun = time.monotonic()
for i, q in enumerate(queues):
    threading.Thread(target=work, args=(i, q), daemon=True).start()
for q in putters:
    threading.Thread(target=put, args=(q,), daemon=True).start()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
while True:
    ended = stop.wait(0.01)
    now = list(done)
    print(json.dumps(dict(n=sum(n for n, _ in now), seconds=max(t for _, t in now), ended=ended)), flush=True)
    if ended:
        break
sys.stderr = open(os.devnull, "w")  # of threads whose connection goes away
client.stop()
os._exit(0)  # threads of kazoo's own may wait for ever
