"""A proxy that changes what a service says, to see that somebody notices."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

__all__ = ["meddling"]

Document = dict[str, Any]
EditAnswer = Callable[[str, bytes, Document], None]
EditMessage = Callable[[Document], None]


@contextmanager
def meddling(port: int, answers: EditAnswer, messages: EditMessage) -> Iterator[str]:
    """Put the proxy before a service.

    Args:
        port: of the service, on loopback.
        answers: changes a JSON answer, given path and body of the request.
        messages: changes a message of a stream.

    Yields:
        The proxy's root.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(port, answers, messages))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(port: int, answers: EditAnswer, messages: EditMessage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.headers.get("upgrade") == "websocket":
                self._tunnel()
            else:
                self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def do_DELETE(self) -> None:
            self._pass_on()

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            kept = [pair for pair in self.headers.items() if pair[0].lower() != "host"]
            url = f"http://127.0.0.1:{port}{self.path}"
            got = httpx.request(self.command, url, content=body, headers=kept, timeout=60)
            content = got.content
            if "json" in got.headers.get("content-type", ""):
                document = got.json()
                answers(self.path, body, document)
                content = json.dumps(document).encode()
            self.send_response(got.status_code)
            for name, value in got.headers.items():
                if name not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            if got.status_code != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _tunnel(self) -> None:
            self.close_connection = True
            with socket.create_connection(("127.0.0.1", port), timeout=60) as server:
                server.sendall(f"{self.requestline}\r\n{self.headers}".encode())
                threading.Thread(target=self._upwards, args=(server,), daemon=True).start()
                wire = server.makefile("rb")
                while (line := wire.readline()).strip():
                    self.wfile.write(line)
                self.wfile.write(line)
                while head := wire.read(2):
                    self.wfile.write(_frame(head[0], _body(wire, head[1]), messages))

        def _upwards(self, server: socket.socket) -> None:
            try:
                while data := self.rfile.read1():  # type: ignore[attr-defined]
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)
            except OSError:
                return

        def log_message(self, *_: object) -> None:
            """Nothing."""

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # who asked has left
                self.close_connection = True

    return Handler


def _body(wire: Any, size: int) -> bytes:
    if size == 126:
        (size,) = struct.unpack(">H", wire.read(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", wire.read(8))
    data: bytes = wire.read(size)
    return data


def _frame(first: int, data: bytes, messages: EditMessage) -> bytes:
    if first == 0x81:  # a whole text
        document = json.loads(data)
        messages(document)
        data = json.dumps(document).encode()
    size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
    return bytes([first]) + size + data
