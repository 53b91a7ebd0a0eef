"""A stand-in for a paid model on 127.0.0.1, in OpenAI's protocol: hashed embeddings, scripted completions."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import numpy as np

from tests.support.make_database import embedding, scripted_model

SITE = '''\
"""lightrag-server counts tokens with tiktoken, which downloads its tables. Here every byte is a token."""
import tiktoken

_bytes = tiktoken.Encoding("bytes", pat_str=r"[\\s\\S]", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={})
tiktoken.encoding_for_model = tiktoken.get_encoding = lambda name: _bytes
'''
"""A `sitecustomize.py` for the server's process."""


class ModelServer:
    """`with ModelServer(dim) as models:` serves `models.url` and remembers what was asked.

    What goes wrong is set at any time: `failing` answers with that status, `refused` with 400 where a text holds that
    word, `dim` with vectors of that size; each completion takes `delay_s`. `keys` are those that came with requests.
    """

    def __init__(self, dim: int, *, port: int = 0) -> None:
        self.dim = dim
        self.embedded: list[str] = []
        self.prompts: list[str] = []
        self.may_answer = threading.Event()
        """Cleared, completions wait."""
        self.may_answer.set()
        self.keys: set[str] = set()
        self.failing: int | None = None
        self.refused: str | None = None
        self.delay_s = 0.0
        models = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                models.keys.add(str(self.headers["Authorization"]))
                answer = models.embeddings if self.path.endswith("/embeddings") else models.completion
                status = models.failing
                if (
                    status is None
                    and models.refused
                    and models.refused in json.dumps(asked, ensure_ascii=False)
                ):
                    status = 400
                told = answer(asked) if status is None else {"error": {"message": "scripted failure"}}
                body = json.dumps(told).encode()
                self.send_response(status or 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def embeddings(self, asked: dict[str, Any]) -> dict[str, Any]:
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        self.embedded += texts
        rows = [np.asarray(row, "<f4") for row in asyncio.run(embedding(self.dim)(texts))]
        packed = asked.get("encoding_format") == "base64"
        return {
            "object": "list",
            "model": asked["model"],
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": base64.b64encode(row.tobytes()).decode() if packed else row.tolist(),
                }
                for index, row in enumerate(rows)
            ],
        }

    def completion(self, asked: dict[str, Any]) -> dict[str, Any]:
        said = {message["role"]: message["content"] for message in asked["messages"]}
        self.prompts.append(said["user"])
        self.may_answer.wait(300)
        time.sleep(self.delay_s)
        text = asyncio.run(scripted_model(said["user"], said.get("system")))
        return {
            "id": "scripted",
            "object": "chat.completion",
            "created": 0,
            "model": asked["model"],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            ],
        }

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()
