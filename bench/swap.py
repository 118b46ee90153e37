"""Exchanges the bundle of a service under load, and lets a shadow run: what fails, waits, stays.

    python -m bench.swap [--rate 10] [--seconds 20] [--swaps 10]

Two copies of the shipped bundle are exchanged in turn (cards apart, so their digests differ) while
single frames and exams of five arrive at a constant rate. Memory is read after each exchange, when
the old bundle has been let go. The same load is then sent with and without a shadow, in turn. Clock
figures are of this machine as it was; compare them within one run.
"""

import argparse
import asyncio
import hashlib
import json
import shutil
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from bench.load import Run, arrive, form_call, image_call
from bench.server import Server, serving_ours
from service.settings import newest_bundle

__all__ = ["main", "with_card"]

_EXAMPLES = Path(__file__).parents[1] / "examples"
_SETTLES_S = 2.0


def with_card(bundle: Path, out: Path, card: str) -> Path:
    """Copy a bundle under another model card, which gives it another digest."""
    shutil.copytree(bundle, out)
    (out / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    data = card.encode()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest["files"]["MODEL_CARD.md"] = entry
    (out / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return out


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of each part without exchanges"
    )
    parser.add_argument("--swaps", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        one = with_card(newest_bundle(), root / "one", "# One\n")
        with_card(one, root / "two", "# Two\n")
        settings = {"bundle": str(one), "bundles": str(root), "max_queue_s": "600"}
        with serving_ours(settings) as server:
            asyncio.run(_measure(server, given))


async def _measure(server: Server, given: argparse.Namespace) -> None:
    def load(seconds: float) -> Any:
        pictures = [path.read_bytes() for path in sorted(_EXAMPLES.glob("*.jpg"))]
        calls = [image_call(one, server.address) for one in pictures]
        calls.append(form_call(pictures[:5], server.address))
        return arrive(server.address, calls, given.rate, seconds)

    await load(5.0)
    _show("quiet", await load(given.seconds), server)
    sending = asyncio.create_task(load(given.swaps * (_SETTLES_S + 1.0)))
    for number in range(given.swaps):
        name = ("two", "one")[number % 2]
        state = await asyncio.to_thread(_ask, server, "POST", "/load", {"bundle": name})
        assert state["active"]["folder"] == name
        await asyncio.sleep(_SETTLES_S)
        print(f"exchange {number + 1}: in RAM {server.resident_mib():.0f} MiB", flush=True)
    _show("through exchanges", await sending, server)
    other = "one" if given.swaps % 2 else "two"
    for part in range(2):
        _show("without shadow", await load(given.seconds), server)
        await asyncio.to_thread(_ask, server, "POST", "/shadow", {"bundle": other})
        _show("with shadow", await load(given.seconds), server)
        state = await asyncio.to_thread(_ask, server, "GET", "", None)
        print(f"shadow, part {part + 1}: {json.dumps(state['shadow']['agreement'])}", flush=True)
        await asyncio.to_thread(_ask, server, "DELETE", "/shadow", None)


def _ask(server: Server, method: str, path: str, body: dict[str, str] | None) -> dict[str, Any]:
    host, port = server.address
    request = urllib.request.Request(
        f"http://{host}:{port}/v1/admin/models{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        state: dict[str, Any] = json.load(answer)
        return state


def _show(part: str, run: Run, server: Server) -> None:
    ms = run.latency_ms()
    print(
        f"{part}: {sum(run.statuses.values())} requests, {run.failed} failed, "
        f"p50 {ms['p50']:.0f} ms, p99 {ms['p99']:.0f} ms, max {ms['max']:.0f} ms, "
        f"in RAM {server.resident_mib():.0f} MiB",
        flush=True,
    )


if __name__ == "__main__":
    main()
