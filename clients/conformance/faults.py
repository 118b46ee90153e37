"""A proxy that does to a client what networks and busy services do: 429, 503, slow, drop, cut.

Each scoring request meets the next fault of the list, then the list begins anew; `ok` lets one
through. What a good client does: wait as Retry-After says, try again after a broken connection, and
come to the same answer.
"""

import argparse
import itertools
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

__all__ = ["FAULTS", "main", "proxy"]

FAULTS = ("429", "503", "slow", "drop", "cut", "ok")
_BUSY = {"429": "rate_limited", "503": "overloaded"}
_PASSED_ON = ("content-type", "accept", "authorization", "x-request-id", "x-deadline-ms")


def proxy(
    target: str,
    faults: Sequence[str],
    *,
    port: int = 0,
    slow_s: float = 2.0,
    retry_after_s: int = 1,
) -> ThreadingHTTPServer:
    """Make the proxy; `serve_forever` runs it.

    Args:
        target: the service's root.
        faults: of `FAULTS`, met in turn.
        port: of loopback; 0 takes a free one.
        slow_s: how long `slow` waits before the answer.
        retry_after_s: what 429 and 503 say.

    Raises:
        ValueError: a fault is none of `FAULTS`.
    """
    unknown = sorted(set(faults) - set(FAULTS))
    if unknown or not faults:
        raise ValueError(f"expected faults of {', '.join(FAULTS)}; found {', '.join(unknown)}")
    turns, lock = itertools.cycle(faults), threading.Lock()
    http = httpx.Client(base_url=target.rstrip("/"), timeout=120)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass_on(b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with lock:
                fault = next(turns)
            if fault in _BUSY:
                self._busy(fault)
            elif fault == "drop":
                self.close_connection = True
            else:
                time.sleep(slow_s if fault == "slow" else 0)
                self._pass_on(body, cut=fault == "cut")

        def _busy(self, fault: str) -> None:
            code = _BUSY[fault]
            text = (
                f'{{"type":"urn:endo-clip:problem:{code}","title":"Busy","status":{fault},'
                f'"detail":"made by the fault proxy","code":"{code}","request_id":"fault"}}'
            )
            self.send_response(int(fault))
            self.send_header("Content-Type", "application/problem+json")
            self.send_header("Retry-After", str(retry_after_s))
            self._end(text.encode())

        def _pass_on(self, body: bytes, *, cut: bool = False) -> None:
            headers = {name: self.headers[name] for name in _PASSED_ON if name in self.headers}
            answer = http.request(self.command, self.path, content=body, headers=headers)
            self.send_response(answer.status_code)
            for name in ("content-type", "retry-after", "x-request-id"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self._end(answer.content, cut=cut)

        def _end(self, body: bytes, *, cut: bool = False) -> None:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = cut

        def log_message(self, *_: object) -> None:
            """Nothing: requests may carry pseudonyms."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main(arguments: Sequence[str]) -> int:
    """Run the proxy until Ctrl-C."""
    parser = argparse.ArgumentParser("conformance faults", description=__doc__)
    parser.add_argument("url", help="of the service")
    parser.add_argument("--faults", default=",".join(FAULTS), help="met in turn (default: all)")
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--slow-s", type=float, default=2.0)
    parser.add_argument("--retry-after-s", type=int, default=1)
    args = parser.parse_args(arguments)
    try:
        server = proxy(
            args.url,
            args.faults.split(","),
            port=args.port,
            slow_s=args.slow_s,
            retry_after_s=args.retry_after_s,
        )
    except ValueError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    print(f"http://127.0.0.1:{server.server_port} → {args.url}: {args.faults}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    return 0
