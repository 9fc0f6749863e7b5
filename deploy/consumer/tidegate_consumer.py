#!/usr/bin/env python3
"""Takes what Tidegate devices send from an MQTT broker into an SQLite file, each record once.

It is small so that it can be read, and shows what any receiver has to do; docs/consumer.md has the reasons:

* the broker keeps what comes while this program is away: a session of its own (clean_session false), QoS 1;
* a message is acknowledged to the broker after the transaction with it is on disk, and not before;
* what comes twice is told by (device, epoch, seq);
* a record that was merged from several takes the place of those.

Python 3.9 or later, with paho-mqtt 2 (Debian 13: python3-paho-mqtt; otherwise: pip install -r requirements.txt).
"""

import argparse
import json
import signal
import sqlite3
import ssl
import sys
import time

import paho.mqtt.client as mqtt

SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    device TEXT NOT NULL,
    epoch INTEGER NOT NULL,        -- counts the starts of the device
    seq INTEGER NOT NULL,          -- counts the records of one start
    first_epoch INTEGER NOT NULL,  -- of the first record that this one stands for; its own, unless it was merged
    first_seq INTEGER NOT NULL,
    count INTEGER NOT NULL,        -- how many it stands for
    topic TEXT NOT NULL,
    time TEXT NOT NULL,
    replayed INTEGER NOT NULL,     -- it had to wait for the link
    payload TEXT NOT NULL,         -- JSON
    PRIMARY KEY (device, epoch, seq)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_topic ON records (device, topic, epoch, seq);
-- What came without an envelope. Of this, duplicates cannot be told.
CREATE TABLE IF NOT EXISTS plain (
    received TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')),
    topic TEXT NOT NULL,
    payload BLOB NOT NULL
);
"""

# The first record of the topic at or after this one. If it stands for this one, too, this one is there already.
NEXT = """
SELECT first_epoch, first_seq FROM records
WHERE device = ? AND topic = ? AND (epoch, seq) >= (?, ?) ORDER BY epoch, seq LIMIT 1
"""
# What a merged record takes the place of. What is in the same span on other topics stays.
REPLACED = """
DELETE FROM records
WHERE device = ? AND topic = ? AND (epoch, seq) >= (?, ?) AND (epoch, seq) <= (?, ?)
"""
INSERT = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class NoEnvelope(Exception):
    """A payload is not what an `uplink` node sends, unless with `envelope = "none"`."""


class Record:
    """A message in its envelope."""

    def __init__(self, body):
        try:
            envelope = json.loads(body, parse_constant=refuse)
            self.device = text(envelope["device"])
            self.id = (number(envelope["epoch"]), number(envelope["seq"]))
            self.time = text(envelope["time"])
            self.payload = json.dumps(envelope["payload"], allow_nan=False)
            self.replayed = envelope.get("replayed") is True
            merged = envelope.get("merged")
            self.first, self.count = self.id, 1
            if merged is not None:
                self.first = (number(merged["epoch"]), number(merged["seq"]))
                self.count = number(merged["count"])
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise NoEnvelope from error
        if self.first > self.id:
            raise NoEnvelope


def refuse(constant):
    raise ValueError(constant)


def number(value):
    # bool is an int in Python; more than this SQLite cannot keep.
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(value)
    return value


def text(value):
    if type(value) is not str:
        raise ValueError(value)
    value.encode()  # half of a surrogate pair has no UTF-8, and SQLite would refuse it
    return value


class Store:
    """The SQLite file."""

    def __init__(self, path):
        self.database = sqlite3.connect(path, isolation_level=None)
        # With FULL, what is committed outlives a power cut.
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = FULL")
        self.database.executescript(SCHEMA)
        self.stored = 0
        self.again = 0

    def put(self, messages):
        """Stores all of these messages, or, with an exception, none."""
        self.database.execute("BEGIN IMMEDIATE")
        try:
            for message in messages:
                self.put_one(message.topic, message.payload)
            self.database.execute("COMMIT")
        except BaseException:
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            raise

    def put_one(self, topic, body):
        try:
            record = Record(body)
        except NoEnvelope:
            self.database.execute("INSERT INTO plain (topic, payload) VALUES (?, ?)", (topic, body))
            return
        place = (record.device, topic)
        following = self.database.execute(NEXT, (*place, *record.id)).fetchone()
        if following is not None and following <= record.first:
            self.again += 1
            return
        self.database.execute(REPLACED, (*place, *record.first, *record.id))
        self.database.execute(
            INSERT,
            (record.device, *record.id, *record.first, record.count, topic, record.time, record.replayed, record.payload),
        )
        self.stored += 1

    def has_any(self):
        return self.database.execute("SELECT EXISTS (SELECT 1 FROM records)").fetchone()[0] == 1


class Consumer:
    """One connection after another, in one thread."""

    # Beyond this many messages a transaction gains nothing.
    BATCH = 500

    def __init__(self, arguments, store):
        self.arguments = arguments
        self.store = store
        self.batch = []
        self.is_up = False
        self.must_stop = False
        self.problem = None
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=arguments.client_id,
            clean_session=False,
            manual_ack=True,
        )
        context = ssl.create_default_context(cafile=arguments.ca)
        context.load_cert_chain(arguments.cert, arguments.key)
        self.client.tls_set_context(context)
        self.client.on_connect = self.connected
        self.client.on_subscribe = self.subscribed
        self.client.on_disconnect = self.disconnected
        self.client.on_message = lambda client, data, message: self.batch.append(message)

    def connected(self, client, data, flags, reason, properties):
        if reason.is_failure:
            say(f"the broker refuses: {reason}")
            return
        self.is_up = True
        if not flags.session_present and self.store.has_any():
            say("the broker knows no session of ours: what devices sent while we were away may be lost")
        client.subscribe(self.arguments.topic, qos=1)

    def subscribed(self, client, data, mid, reasons, properties):
        refused = [reason for reason in reasons if reason.is_failure]
        if refused:
            self.problem = f"the broker refuses the subscription to {self.arguments.topic}: {refused[0]}"
        else:
            say(f"subscribed to {self.arguments.topic}")

    def disconnected(self, client, data, flags, reason, properties):
        self.is_up = False
        # Their numbers are of this connection: in the next they may be those of others. The broker sends them again.
        self.batch.clear()

    def run(self):
        pause = 0.25
        while not self.must_stop:
            try:
                self.client.connect(self.arguments.host, self.arguments.port, keepalive=30)
            except (OSError, ValueError) as error:
                say(f"cannot connect to {self.arguments.host}:{self.arguments.port}: {error}")
                self.wait(pause)
                pause = min(pause * 2, self.arguments.retry_max)
                continue
            if self.serve():
                pause = 0.25
            if self.problem:
                sys.exit(f"tidegate_consumer: {self.problem}")
            self.wait(pause)
            pause = min(pause * 2, self.arguments.retry_max)

    def serve(self):
        """One connection, to its end; whether there was one."""
        was_up = False
        while not self.must_stop and not self.problem:
            before = len(self.batch)
            if self.client.loop(timeout=0.05) != mqtt.MQTT_ERR_SUCCESS:
                break
            was_up = was_up or self.is_up
            # A broker stops at some number of unacknowledged messages: when nothing more comes, it is time.
            if len(self.batch) == before or len(self.batch) >= self.BATCH:
                self.settle()
        if self.must_stop and self.is_up:
            self.settle()
            self.client.disconnect()
            self.client.loop(timeout=0.2)
        self.batch.clear()
        return was_up

    def settle(self):
        """On disk first, then acknowledged: between the two the broker has it, too."""
        if not self.batch:
            return
        batch, self.batch = self.batch, []
        self.store.put(batch)
        for message in batch:
            if message.qos > 0:
                self.client.ack(message.mid, message.qos)

    def wait(self, seconds):
        end = time.monotonic() + seconds
        while not self.must_stop and time.monotonic() < end:
            time.sleep(0.05)

    def stop(self, *_):
        self.must_stop = True


def say(words):
    print(f"tidegate_consumer: {words}", file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description="Takes what Tidegate devices send into an SQLite file, each record once.")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=8883)
    parser.add_argument("--ca", required=True, help="the CA of the broker's certificate, PEM")
    parser.add_argument("--cert", required=True, help="the certificate of this consumer, PEM")
    parser.add_argument("--key", required=True)
    parser.add_argument("--client-id", required=True, help="the name of the session: one per consumer, and always the same")
    parser.add_argument("--topic", default="sites/#")
    parser.add_argument("--database", required=True, help="the SQLite file; it is made if it is not there")
    parser.add_argument("--retry-max", type=float, default=30.0, help="the longest pause between connections, in seconds")
    return parser.parse_args()


def main():
    given = arguments()
    try:
        store = Store(given.database)
        consumer = Consumer(given, store)
        signal.signal(signal.SIGTERM, consumer.stop)
        signal.signal(signal.SIGINT, consumer.stop)
        consumer.run()
    except sqlite3.Error as error:
        sys.exit(f"tidegate_consumer: {given.database}: {error}; nothing is acknowledged that is not stored")
    except (OSError, ssl.SSLError) as error:
        sys.exit(f"tidegate_consumer: {error}")
    say(f"{store.stored} records stored, {store.again} came again")


if __name__ == "__main__":
    main()
