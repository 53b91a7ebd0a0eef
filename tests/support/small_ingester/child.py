"""The child's side. What stands in a document steers it: "sleep N" (s), "fail", "die". `down` in its folder: no server.

Every document that went in is a line of `went-in` in TEST_CONTROL, written before the store is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

CONTROL = Path(os.environ["TEST_CONTROL"])


class Lost(Exception):
    pass


class Files:
    """`kv_store_doc_status.json`, as LightRAG writes it."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / "kv_store_doc_status.json"
        self._rows: dict[str, Any] = json.loads(self._path.read_text("utf-8")) if self._path.exists() else {}

    def rows(self) -> dict[str, Any]:
        return self._rows

    def put(self, key: str, row: dict[str, Any]) -> None:
        self._rows[key] = row
        self._write()

    def drop(self, key: str) -> None:
        del self._rows[key]
        self._write()

    def _write(self) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._rows, indent=2, ensure_ascii=False), "utf-8")
        new.replace(self._path)


class Postgres:
    """`lightrag_doc_status`, by a connection that may be lost."""

    def __init__(self, workspace: str) -> None:
        import psycopg

        environ = os.environ
        self._workspace = environ["POSTGRES_WORKSPACE"] or workspace
        try:
            self._db = psycopg.connect(
                host=environ["POSTGRES_HOST"], port=environ["POSTGRES_PORT"], user=environ["POSTGRES_USER"],
                password=environ["POSTGRES_PASSWORD"], dbname=environ["POSTGRES_DATABASE"], autocommit=True,
            )  # fmt: skip
        except psycopg.OperationalError as error:
            raise Lost(str(error).splitlines()[0]) from None
        self._lost = psycopg.OperationalError

    def _execute(self, statement: str, *values: Any) -> Any:
        try:
            return self._db.execute(statement, (*values, self._workspace))
        except self._lost as error:
            raise Lost(str(error).splitlines()[0]) from None

    def rows(self) -> dict[str, Any]:
        found = self._execute(
            "SELECT id, file_path, content_hash, status FROM lightrag_doc_status WHERE workspace = %s"
        )
        return {
            key: {"file_path": path, "content_hash": digest, "status": status}
            for key, path, digest, status in found
        }

    def put(self, key: str, row: dict[str, Any]) -> None:
        self._execute(
            "INSERT INTO lightrag_doc_status (id, file_path, content_hash, status, content_length, workspace) "
            "VALUES (%s, %s, %s, 'processed', %s, %s)",
            key, row["file_path"], row["content_hash"], row["content_length"],
        )  # fmt: skip

    def drop(self, key: str) -> None:
        self._execute("DELETE FROM lightrag_doc_status WHERE id = %s AND workspace = %s", key)


def ingest(store: Any, document: dict[str, str]) -> dict[str, Any]:
    name, text, digest = document["name"], document["text"], document["digest"]
    begun = time.monotonic()
    told = {"name": name, "characters": len(text), "seconds": 0.0}
    if "fail" in text:
        return {**told, "fate": "failed", "reason": "the model refused"}
    if seconds := re.search(r"sleep ([0-9.]+)", text):
        time.sleep(float(seconds[1]))
    if "die" in text:
        os._exit(3)
    rows = store.rows()
    if any(row.get("content_hash") == digest for row in rows.values()):
        return {**told, "fate": "known"}
    for key in [key for key, row in rows.items() if row["file_path"] == name]:
        store.drop(key)
    with (CONTROL / "went-in").open("a", encoding="utf-8") as file:
        file.write(f"{name} {digest}\n")
    store.put(
        "doc-" + hashlib.md5(f"{name} {digest}".encode()).hexdigest(),  # noqa: S324
        {
            "content_summary": text[:100], "content_length": len(text), "chunks_count": 0, "chunks_list": [],
            "status": "processed", "file_path": name, "content_hash": digest, "track_id": None, "metadata": {},
            "created_at": "2026-01-01T00:00:00+00:00", "updated_at": "2026-01-01T00:00:00+00:00", "error_msg": None,
        },
    )  # fmt: skip
    return {**told, "fate": "ingested", "seconds": time.monotonic() - begun}


def answer(store: list[Any], where: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    if (CONTROL / "down").exists():
        return {"lost": "the server is down"}
    if (CONTROL / "spec").exists():
        return {"spec": (CONTROL / "spec").read_text("utf-8")}
    try:
        if message["do"] == "start":
            store.append(Files(where["folder"]) if where["folder"] else Postgres(where["workspace"]))
            return {"ok": True}
        if message["do"] == "known":
            rows = store[0].rows().values()
            return {"ok": {row["file_path"]: row["content_hash"] for row in rows if row.get("content_hash")}}
        return {"ok": [ingest(store[0], document) for document in message["documents"]]}
    except Lost as lost:
        return {"lost": str(lost)}


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.05)
    os._exit(1)


def main() -> None:
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    where, store = json.loads(sys.argv[1]), []
    for line in sys.stdin:
        print(json.dumps(answer(store, where, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
