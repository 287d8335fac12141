"""Asks for tokens until standard input ends; prints a dot when the first is there, and a report as JSON at the end."""

import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parents[2] / "tests/clients/python"))
from broker import Broker  # noqa: E402

THREADS = 8
PACE = 0.02
# A list of addresses is no host name; one name that resolves to all replicas needs no such thing.
AUTHORITY = [("grpc.default_authority", "token-broker")]

target, keys = sys.argv[1], json.loads(sys.argv[2])
broker = Broker(target, os.environ["TOKEN_BROKER_API_KEY"], timeout=15, options=AUTHORITY)
stop = threading.Event()
failed, times = Counter(), []


def ask(number):
    turn = number
    while not stop.is_set():
        began = time.monotonic()
        try:
            answer = broker.GetCredential(key=keys[turn % len(keys)])
            if answer.WhichOneof("result") != "credential":
                failed[answer.WhichOneof("result")] += 1
        except grpc.RpcError as error:
            failed[f"{error.code().name}: {error.details()}"] += 1
        times.append(time.monotonic() - began)
        turn += THREADS + 1
        time.sleep(PACE)


broker.GetCredential(key=keys[0])
print(".", end="", flush=True)
threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
for thread in threads:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
times.sort()
at = lambda share: round(times[min(int(len(times) * share), len(times) - 1)] * 1000, 1)  # noqa: E731
print(json.dumps({"calls": len(times), "failed": failed, "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1)}))
