"""A small OpenAI-compatible chat server on loopback, to be a peer that fails in every way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from training.attributes import ATTRIBUTES

PROBE = "1. A 4 mm polyp."


def lesion(*sentences: int, **told: tuple[str, str]) -> dict[str, Any]:
    """One answered lesion: attribute=(value, evidence); the others are not mentioned."""
    silent = ("not_mentioned", "")
    return {
        "sentences": sentences,
        "attributes": {
            name: dict(zip(("value", "evidence"), told.get(name, silent), strict=True))
            for name in ATTRIBUTES
        },
    }


def answer(*lesions: dict[str, Any]) -> str:
    return json.dumps({"lesions": lesions})


class ChatServer:
    """What the server does and what it was asked.

    Attributes:
        reply: From the report to the model's content, or to (status, body) or a function that
            writes to the handler itself.
        asked: Requests' bodies, in order; `reports` are their last messages without the probe.
        formats: Answer formats it takes.
    """

    def __init__(self, reply: Callable[[str], Any]) -> None:
        self.reply, self.url = reply, ""
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.formats = {"json_schema", "json_object", "text"}
        self.refuses_with = 400
        self.most_at_once = self._now = 0
        self._lock = threading.Lock()

    @property
    def reports(self) -> list[str]:
        told = [body["messages"][-1]["content"] for body in self.asked]
        return [text for text in told if text != PROBE]

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.asked.append(body)
            self.keys.append(handler.headers.get("Authorization"))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self._answer(handler, body)
        finally:
            with self._lock:
                self._now -= 1

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if body["response_format"]["type"] not in self.formats:
            send(handler, self.refuses_with, {"error": {"message": "bad response_format"}})
            return
        told = self.reply(body["messages"][-1]["content"])
        if callable(told):
            told(handler)
        elif isinstance(told, tuple):
            send(handler, *told)
        else:
            send(handler, 200, completion(told))


def completion(content: str, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13},
    }


def send(
    handler: BaseHTTPRequestHandler, status: int, body: Any, headers: dict[str, str] | None = None
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def drop(handler: BaseHTTPRequestHandler) -> None:
    """Begin an answer and close the connection."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id"')
    handler.close_connection = True


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Send a byte now and then, for longer than anybody waits."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    handler.close_connection = True
    try:
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


@contextmanager
def chat_server(reply: Callable[[str], Any]) -> Iterator[ChatServer]:
    chat = ChatServer(reply)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            try:
                chat.handle(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # the client went away, which some tests are about

    server = Server(("127.0.0.1", 0), Handler)
    chat.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
