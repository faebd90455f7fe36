"""The bare password hash of auth, again and again on one core: `python -m bench.hashing SECONDS` prints JSON.

No login can be cheaper, so it is what logins are compared with.
"""

import json
import sys
import time

from argon2 import PasswordHasher
from slipway_auth.settings import Settings


def measure(seconds: float) -> dict[str, float]:
    """Hashes with the parameters that auth has by default: per second of CPU time, and per second as it passed."""

    def default(name: str) -> int:
        return int(Settings.model_fields[name].default)

    hasher = PasswordHasher(
        time_cost=default("hash_passes"), memory_cost=default("hash_memory_kib"), parallelism=default("hash_lanes")
    )
    stored = hasher.hash("correct horse battery")
    count, started, used = 0, time.perf_counter(), time.process_time()
    while (passed := time.perf_counter() - started) < seconds:
        hasher.verify(stored, "correct horse battery")
        count += 1
    return {"per_core": count / (time.process_time() - used), "per_second": count / passed}


if __name__ == "__main__":
    print(json.dumps(measure(float(sys.argv[1]))))
