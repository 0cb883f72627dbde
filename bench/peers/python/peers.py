"""huey (SqliteHuey) and litequeue, measured as the engine's queue is: jobs a second from put to done, in one process.

Answers one JSON line on standard output; `--help` names the settings, whose defaults are the fastest that were found.
"""

import argparse
import json
import logging
import queue
import sqlite3
import threading
import time


def share(jobs, producers, at_once, put):
    """Puts `jobs` jobs by `producers` threads, `at_once` in each call of `put`."""
    numbers = iter(range(0, jobs, at_once))
    lock = threading.Lock()
    failures = queue.Queue()

    def run():
        try:
            while True:
                with lock:
                    first = next(numbers, None)
                if first is None:
                    return
                put(range(first, min(jobs, first + at_once)))
        except BaseException as error:
            failures.put(error)

    threads = [threading.Thread(target=run) for _ in range(producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not failures.empty():
        raise failures.get()


class Goal:
    """Reached when `jobs` jobs have ended."""

    def __init__(self, jobs):
        self.left = jobs
        self.lock = threading.Lock()
        self.reached = threading.Event()

    def ended(self):
        with self.lock:
            self.left -= 1
            if self.left == 0:
                self.reached.set()


def run_huey(args):
    from huey import SqliteHuey

    logging.disable(logging.CRITICAL)
    fsync = {"full": True, "default": None}[args.durability]
    huey = SqliteHuey(filename=args.database, fsync=fsync, timeout=60)
    goal = Goal(args.jobs)

    @huey.task()
    def perform(number):
        goal.ended()

    def put(numbers):
        for number in numbers:
            perform(number)

    consumer = huey.create_consumer(
        workers=args.workers, worker_type="thread", periodic=False, initial_delay=0.001, max_delay=0.01
    )
    started = time.perf_counter()
    if args.mode == "backlog":
        share(args.jobs, args.producers, 1, put)
        started = time.perf_counter()
    consumer.start()
    if args.mode == "flow":
        share(args.jobs, args.producers, 1, put)
    goal.reached.wait()
    seconds = time.perf_counter() - started
    connection = huey.storage.conn
    report(args, seconds, connection)
    consumer.stop(graceful=True)


def run_litequeue(args):
    from litequeue import LiteQueue

    made = threading.local()

    def open_queue():
        if not hasattr(made, "queue"):
            made.queue = LiteQueue(args.database, timeout=60)
            if args.durability == "full":
                made.queue.conn.execute("PRAGMA synchronous = FULL")
        return made.queue

    goal = Goal(args.jobs)
    stop = threading.Event()

    def put(numbers):
        waiting = open_queue()
        if len(numbers) == 1:
            waiting.put(str(numbers[0]))
            return
        with waiting.transaction("IMMEDIATE"):
            for number in numbers:
                waiting.put(str(number))

    def consume():
        waiting = open_queue()
        while not stop.is_set():
            message = waiting.pop()
            if message is None:
                time.sleep(0.0005)
                continue
            waiting.done(message.message_id)
            goal.ended()

    open_queue()
    consumers = [threading.Thread(target=consume) for _ in range(args.workers)]
    started = time.perf_counter()
    if args.mode == "backlog":
        share(args.jobs, args.producers, 1000, put)
        started = time.perf_counter()
    for consumer in consumers:
        consumer.start()
    if args.mode != "backlog":
        share(args.jobs, args.producers, 100 if args.mode == "many" else 1, put)
    goal.reached.wait()
    seconds = time.perf_counter() - started
    stop.set()
    for consumer in consumers:
        consumer.join()
    report(args, seconds, open_queue().conn)


def report(args, seconds, connection):
    answer = {
        "jobs": args.jobs,
        "seconds": seconds,
        "jobs_per_s": args.jobs / seconds,
        "synchronous": connection.execute("PRAGMA synchronous").fetchone()[0],
        "journal_mode": connection.execute("PRAGMA journal_mode").fetchone()[0],
        "sqlite": sqlite3.sqlite_version,
    }
    print(json.dumps(answer), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=["huey", "litequeue"])
    parser.add_argument("--database", required=True)
    parser.add_argument("--mode", choices=["flow", "many", "backlog"], required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--producers", type=int, default=1)
    parser.add_argument("--workers", type=int, help="4 for huey, 1 for litequeue, whose writers only wait for each other")
    parser.add_argument("--durability", choices=["full", "default"], default="full")
    args = parser.parse_args()
    args.workers = args.workers or {"huey": 4, "litequeue": 1}[args.peer]
    {"huey": run_huey, "litequeue": run_litequeue}[args.peer](args)


if __name__ == "__main__":
    main()
