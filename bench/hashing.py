"""The bare password hash of auth, again and again on one core: `python -m bench.hashing SECONDS` prints JSON.

No login can be cheaper, so it is what logins are compared with.
"""

import json
import sys
import time

from argon2 import PasswordHasher
from slipway_auth.settings import Settings


def hashes_per_second(seconds: float) -> float:
    """With the parameters that auth has by default, on the thread that asks."""

    def default(name: str) -> int:
        return int(Settings.model_fields[name].default)

    hasher = PasswordHasher(
        time_cost=default("hash_passes"), memory_cost=default("hash_memory_kib"), parallelism=default("hash_lanes")
    )
    stored = hasher.hash("correct horse battery")
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        hasher.verify(stored, "correct horse battery")
        count += 1
    return count / passed


if __name__ == "__main__":
    print(json.dumps({"hashes_per_second": hashes_per_second(float(sys.argv[1]))}))
