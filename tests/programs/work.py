"""Threads and numpy. Nothing that it prints depends on time."""
import hashlib
import queue
import sys
import threading
import time

import numpy

ROUNDS = 60
jobs, results = queue.Queue(), queue.Queue()


def worker():
    while (job := jobs.get()) is not None:
        matrix = (numpy.arange(250 * 250, dtype=numpy.float64).reshape(250, 250) * (job + 1)) % 101
        for _ in range(6):
            matrix = (matrix @ matrix.T) % 1009
        text = hashlib.sha256(numpy.ascontiguousarray(matrix.astype(numpy.int64)).tobytes()).hexdigest()
        time.sleep(0.001)
        results.put((job, text))


threads = [threading.Thread(target=worker) for _ in range(3)]
for thread in threads:
    thread.start()
for job in range(ROUNDS):
    jobs.put(job)
found = {}
for _ in range(ROUNDS):
    job, text = results.get()
    found[job] = text
    if len(found) % 10 == 0:
        print("done", len(found), flush=True)
for _ in threads:
    jobs.put(None)
for thread in threads:
    thread.join()
print("total", hashlib.sha256("".join(found[i] for i in range(ROUNDS)).encode()).hexdigest(), sys.version_info[0])
