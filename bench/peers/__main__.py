"""Measures another server with the same weights beside this service, in the same minutes.

    python -m bench.peers fastapi_torch --python .venv-train/bin/python
    python -m bench.peers bentoml --python .venv-peer-bentoml/bin/python --decode ours

First the peer's answers are held against ours, frame by frame; then slices of load alternate
between both, the other one idle. What counts is the ratio of the slices' medians.
"""

import argparse
import asyncio
import base64
import json
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.frames import enlarged
from bench.load import Address, Call, Run, arrive, form_call, json_call, saturate
from bench.server import Server, free_port, serving, serving_ours
from service.settings import newest_bundle

ROOT = Path(__file__).parents[2]
SIZE = (1280, 1024)


@dataclass(frozen=True)
class Peer:
    """How a peer is started and asked; `{port}` and `{batch}` are filled in.

    Attributes:
        command: arguments of its environment's Python.
        ready: path that answers 200 when it can be asked.
        path: of its endpoint.
        environment: variables of its own; `{free}` is a port that nobody else has.
        call: makes a request of some frames.
    """

    command: tuple[str, ...]
    ready: str = "/health"
    path: str = "/predict"
    environment: Mapping[str, str] = field(default_factory=dict)
    call: Callable[[Sequence[bytes], Address, str], Call] = form_call


def protocol_call(images: Sequence[bytes], address: Address, path: str) -> Call:
    """Frames as the Open Inference Protocol has them: base64 in JSON."""
    tensor = {
        "name": "frames",
        "shape": [len(images), 1],
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": [base64.b64encode(image).decode() for image in images],
    }
    return json_call({"inputs": [tensor]}, len(images), address, path)


PEERS = {
    "fastapi_torch": Peer(
        (
            "-m",
            "uvicorn",
            "bench.peers.fastapi_torch:app",
            "--port",
            "{port}",
            "--log-level",
            "error",
        )
    ),
    "litserve": Peer(("bench/peers/litserve_onnx.py",)),
    "bentoml": Peer(
        (
            *("-m", "bentoml", "serve", "bench.peers.bentoml_onnx:Scorer"),
            *("--host", "127.0.0.1", "--port", "{port}"),
        ),
        ready="/readyz",
        environment={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    "mlserver": Peer(
        ("-m", "mlserver.cli.main", "start", "bench/peers"),
        ready="/v2/health/ready",
        path="/v2/models/scorer/infer",
        environment={
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{free}",
            "MLSERVER_METRICS_PORT": "{free}",
            "MLSERVER_DEBUG": "false",
            "MLSERVER_PARALLEL_WORKERS": "2",
            "MLSERVER_MODEL_NAME": "scorer",
            "MLSERVER_MODEL_IMPLEMENTATION": "bench.peers.mlserver_onnx.Scorer",
            "MLSERVER_MODEL_MAX_BATCH_SIZE": "{batch}",
            "MLSERVER_MODEL_MAX_BATCH_TIME": "0.005",
        },
        call=protocol_call,
    ),
}


def main() -> None:
    """Measure one peer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--python", required=True, help="of the peer's environment")
    parser.add_argument("--decode", choices=("full", "ours"), default="full")
    parser.add_argument("--frames", type=int, default=8, help="of a request")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    args = parser.parse_args()
    peer, port = PEERS[args.peer], free_port()
    command = [str(ROOT / args.python), *(part.format(port=port) for part in peer.command)]
    batch = "8" if args.frames == 1 else "2"
    environment = {
        "PYTHONPATH": str(ROOT),
        "PEER_BUNDLE": str(newest_bundle()),
        "PEER_PORT": str(port),
        "PEER_DECODE": args.decode,
        "PEER_BATCH": batch,
        "PYTHONWARNINGS": "ignore",
        **{
            name: value.format(port=port, batch=batch, free=free_port())
            for name, value in peer.environment.items()
        },
    }
    with (
        serving(
            command, port, environment=environment, ready_path=peer.ready, folder=ROOT
        ) as other,
        serving_ours() as ours,
    ):
        calls = {
            "ours": _calls(ours, args.frames, "/v1/polyp-detection"),
            args.peer: _calls(other, args.frames, peer.path, peer.call),
        }
        servers = {"ours": ours, args.peer: other}
        apart = largest_difference(servers, calls, args.peer)
        print(f"largest difference of a cosine to ours: {apart:.2e}", flush=True)
        if apart > (0.03 if args.decode == "full" else 1e-4):
            sys.exit("the peer does not answer what we answer; nothing is timed")
        report(servers, calls, args)


def largest_difference(
    servers: dict[str, Server], calls: dict[str, list[Call]], peer: str
) -> float:
    """Ask both the same requests, and compare the cosines."""
    apart = 0.0
    for number in range(len(calls["ours"])):
        answers = {}
        for name, server in servers.items():
            run = asyncio.run(saturate(server.address, [calls[name][number]], 1, 120.0, most=1))
            if run.failed:
                raise RuntimeError(f"{name}: {dict(run.statuses)}")
            answers[name] = json.loads(run.answers[0])
        (patient,) = answers["ours"]["patients"]
        said = rows_of(answers[peer])
        for frame, theirs in zip(patient["frames"], said, strict=True):
            for our, their in zip(frame["cosine"].values(), theirs, strict=True):
                apart = max(apart, abs(our - their))
    return apart


def rows_of(answer: Any) -> list[list[float]]:
    """Give the cosines of each frame, in whichever shape a peer says them."""
    if isinstance(answer, list):
        return answer
    if "cosine" in answer:
        return answer["cosine"]
    (tensor,) = answer["outputs"]
    values = iter(tensor["data"])
    return [[next(values) for _ in range(tensor["shape"][1])] for _ in range(tensor["shape"][0])]


def report(
    servers: dict[str, Server], calls: dict[str, list[Call]], args: argparse.Namespace
) -> None:
    """Alternate between both and print what came of it."""
    runs: dict[str, list[tuple[Run, float]]] = {name: [] for name in servers}
    for _ in range(args.rounds):
        for name, server in servers.items():
            asyncio.run(saturate(server.address, calls[name], args.clients, 0.5))
            spent = server.cpu_s()
            run = asyncio.run(saturate(server.address, calls[name], args.clients, args.seconds))
            runs[name].append((run, server.cpu_s() - spent))
    per_s = {n: statistics.median(r.frames / r.wall_s for r, _ in rs) for n, rs in runs.items()}
    cpu = {n: statistics.median(1000 * c / r.frames for r, c in rs) for n, rs in runs.items()}
    rate = 0.7 * per_s[args.peer] / args.frames
    seconds = max(args.seconds * 2, 20 / rate)
    late = {
        name: asyncio.run(arrive(server.address, calls[name], rate, seconds))
        for name, server in servers.items()
    }
    case = f"{args.frames} frames of {SIZE[0]}x{SIZE[1]} a request, {args.clients} clients"
    print(f"{args.peer}, decode {args.decode}, {case}; load {os.getloadavg()[0]:.1f}")
    print("| | frames/s | CPU, ms/frame | RAM, MiB | failed | p50, ms | p99 | max |")
    print("|---|---|---|---|---|---|---|---|")
    for name, server in servers.items():
        ms, failed = late[name].latency_ms(), sum(run.failed for run, _ in runs[name])
        print(
            f"| {name} | {per_s[name]:.1f} | {cpu[name]:.2f} | {server.resident_mib():.0f} | "
            f"{failed} | {ms['p50']} | {ms['p99']} | {ms['max']} |"
        )
    p99 = {name: run.latency_ms()["p99"] for name, run in late.items()}
    print(
        f"ours / {args.peer}: {per_s['ours'] / per_s[args.peer]:.2f} frames/s, "
        f"{cpu[args.peer] / cpu['ours']:.2f} frames per CPU-second, p99 at {rate:.1f} requests/s "
        f"{p99['ours'] / p99[args.peer]:.2f}",
        flush=True,
    )


def _calls(
    server: Server,
    frames: int,
    path: str,
    make: Callable[[Sequence[bytes], Address, str], Call] = form_call,
) -> list[Call]:
    images: Sequence[bytes] = enlarged(SIZE)
    return [
        make([images[(at + k) % len(images)] for k in range(frames)], server.address, path)
        for at in range(len(images))
    ]


if __name__ == "__main__":
    main()
