"""The bare password hash of auth, again and again: `python -m bench.hashing` prints a line when it begins, and when its
input ends what it counted, as JSON.

No login can be cheaper, so it is what logins are compared with.
"""

import json
import select
import sys
import time
from collections.abc import Callable

from argon2 import PasswordHasher
from slipway_auth.settings import Settings


def measure(ended: Callable[[], bool]) -> dict[str, float]:
    """Hashes with the parameters that auth has by default, until `ended()`: per second of CPU time, and per second as
    it passed.
    """

    def default(name: str) -> int:
        return int(Settings.model_fields[name].default)

    hasher = PasswordHasher(
        time_cost=default("hash_passes"), memory_cost=default("hash_memory_kib"), parallelism=default("hash_lanes")
    )
    stored = hasher.hash("correct horse battery")
    print("hashing", flush=True)
    count, started, used = 0, time.perf_counter(), time.process_time()
    while not ended():
        hasher.verify(stored, "correct horse battery")
        count += 1
    return {
        "per_core": count / (time.process_time() - used),
        "per_second": count / (time.perf_counter() - started),
    }


if __name__ == "__main__":
    print(json.dumps(measure(lambda: bool(select.select([sys.stdin], [], [], 0)[0]))))
