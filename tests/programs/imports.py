"""Imports, from the first line to the last: a chain of modules in which each imports the next before it is done, in two threads that
meet in one of them, and an event loop inside an import. Nothing that it prints depends on time."""
import hashlib
import os
import sys
import threading

LENGTH = 90
MEETING = 60

MODULE = """
import hashlib, sys
value = {name!r}
for i in range({rounds}):
    value = hashlib.sha256(value.encode()).hexdigest()
if {number} % 30 == 0:
    print("inside", {name!r}, value[:8], flush=True)
{then}
total = value if {last} else hashlib.sha256((value + below.total).encode()).hexdigest()
"""

LOOP = """
import asyncio
async def some():
    for i in range(20):
        await asyncio.sleep(0.0005)
        assert asyncio.get_running_loop() is not None
    return "looped"
below = type("Below", (), {"total": asyncio.run(some())})
"""


def write(directory, line, number):
    name = f"{line}{number:03}"
    meets = line == "b" and number == MEETING
    last = number == LENGTH or meets
    if meets:
        # Whoever comes second waits for the other's import.
        then = f"import a{MEETING + 5:03} as met; value = met.total"
    elif number % 30 == 17:
        then = LOOP + f"loop = below.total\nimport {line}{number + 1:03} as below"
    else:
        then = "" if last else f"import {line}{number + 1:03} as below"
    with open(os.path.join(directory, name + ".py"), "w") as file:
        file.write(MODULE.format(name=name, rounds=9000, number=number if line == "a" else 1, then=then, last=last))


def prepare(directory):
    os.makedirs(directory, exist_ok=True)
    for number in range(LENGTH + 1):
        write(directory, "a", number)
        if number <= MEETING:
            write(directory, "b", number)


if __name__ == "__main__":
    directory = sys.argv[1]
    prepare(directory)
    sys.path.insert(0, directory)
    sys.dont_write_bytecode = True
    sys.setrecursionlimit(20000)
    threading.stack_size(64 << 20)
    found = {}

    def load(line):
        found[line] = __import__(line + "000").total

    threads = [threading.Thread(target=load, args=(line,)) for line in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("total", hashlib.sha256("".join(found[line] for line in "ab").encode()).hexdigest())
