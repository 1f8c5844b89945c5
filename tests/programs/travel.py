"""A chain of SHA-256 on its way: as travel.c. Nothing that it prints depends on time, nor on the machine."""
import hashlib
import os
import random
import threading
import time

digest, numbers = b"seed", random.Random(5)
box = {}


def helper():
    for i in range(150):
        box[i] = "".join(sorted(f"{numbers.random():.6f} {i}" for _ in range(20)))
        time.sleep(0.01)


thread = threading.Thread(target=helper)
thread.start()
for step in range(150):
    if step % 10 == 0:
        print("at", step, flush=True)
    # Nobody has to be quick to save it on its way.
    variable = {50: "GUEST_HALF", 100: "GUEST_GO"}.get(step, "none")
    while variable in os.environ and not os.path.exists(os.environ[variable]):
        time.sleep(0.1)
    for _ in range(300):
        digest = hashlib.sha256(digest + bytes(61)).digest()
    time.sleep(0.01)
thread.join()
print("sum", hashlib.sha256(digest + repr(sorted(box.items())).encode()).hexdigest())
print("PASS", flush=True)
