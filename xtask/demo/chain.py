"""A chain of SHA-256 digests, each of the one before. After every step it writes a line to the terminal and to a
file. The lines are the same in every undisturbed run."""

import hashlib
import sys

STEPS = 40
HASHES = 60000

digest = b""
with open(sys.argv[1], "w") as progress:
    for step in range(1, STEPS + 1):
        for _ in range(HASHES):
            digest = hashlib.sha256(digest).digest()
        line = f"step {step} of {STEPS}: {digest.hex()[:16]}"
        print(line, file=progress, flush=True)
        print(line, flush=True)
