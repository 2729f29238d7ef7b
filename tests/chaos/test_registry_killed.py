"""The registry, killed while it writes: what it had acknowledged it knows, and ids stay what they were."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

from tailrace.avro.registry import RegistryClient, Schema
from tailrace.connection import connect
from tailrace.errors import Unavailable
from tailrace.local.kafka import LocalKafka
from tailrace.local.ports import free_port

KILLS = 20 if os.environ.get("TAILRACE_CHAOS") == "long" else 3


def schema(number: int) -> Schema:
    return {"type": "record", "name": "R", "fields": [{"name": f"f{number}", "type": "long"}]}


def test_what_was_acknowledged_survives_sigkill(kafka: LocalKafka, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    env = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "SCHEMA_REGISTRY_URL": url,
        "TAILRACE_HOME": str(tmp_path),
    }
    ids: dict[int, int] = {}
    done = threading.Event()
    log = (tmp_path / "registry.log").open("ab")

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tailrace.local.registry_server"]
        return subprocess.Popen(command, env=env, stdout=log, stderr=log)

    def write() -> None:
        while not (tmp_path / "access" / "registry.address").exists():
            time.sleep(0.01)
        at = connect(env, tmp_path)
        client = RegistryClient(at.registry, at.registry_auth)
        while not done.is_set():
            try:
                ids[len(ids)] = client.register(f"killed-{len(ids)}", schema(len(ids)))
            except Unavailable:
                time.sleep(0.02)

    writer = threading.Thread(target=write)
    server = start()
    writer.start()
    rng, recoveries = random.Random(7), []
    try:
        for _ in range(KILLS):
            before = len(ids)
            while len(ids) < before + 5:
                time.sleep(0.005)
                assert server.poll() is None, (tmp_path / "registry.log").read_text()
            time.sleep(rng.uniform(0, 0.05))
            server.kill()
            server.wait()
            known, killed = len(ids), time.monotonic()
            server = start()
            while len(ids) == known:
                time.sleep(0.005)
            recoveries.append(time.monotonic() - killed)
        done.set()
        writer.join()
        at = connect(env, tmp_path)
        client = RegistryClient(at.registry, at.registry_auth)
        assert len(set(ids.values())) == len(ids) > 5 * KILLS
        for number, schema_id in ids.items():
            assert client.schema(schema_id) == schema(number)
            assert client.register(f"killed-{number}", schema(number)) == schema_id
    finally:
        done.set()
        server.kill()
        server.wait()
        log.close()
    print(f"\nregistry killed {KILLS} times while writing: 0 of {len(ids)} schemas lost or changed, "
          f"writing again after {max(recoveries):.1f} s at most")  # fmt: skip
