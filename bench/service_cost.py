"""What a frame costs the service in processor time and memory, as its own /metrics tells.

Run from the repository's root, in the service's environment; the shipped bundle is served:

    python -m bench.service_cost
    python -m bench.service_cost --frames 60 --set encode_threads=1

Processor time hardly depends on what else the machine does, unlike seconds on the clock, which are
printed beside it. Frames are the examples' drawn ones at the sizes of common video processors.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Sequence
from itertools import cycle, islice

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.frames import SIZES, enlarged

_MIB = 1024 * 1024


def main() -> None:
    """Measure each size as single frames and as one patient, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100, help="of each row")
    parser.add_argument("--set", nargs="*", default=[], metavar="SETTING=VALUE")
    args = parser.parse_args()
    settings = {"port": "0", "log_level": "error"} | dict(pair.split("=") for pair in args.set)
    environment = {f"ENDOCLIP_{name.upper()}": value for name, value in settings.items()}
    with subprocess.Popen(
        [sys.executable, "-m", "service"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            url = re.search(r"http://\S+", line)
            if url is None:
                sys.exit("the service did not start")
            with httpx.Client(base_url=url[0], timeout=600) as client:
                report(client, args.frames)
        finally:
            process.terminate()


def report(client: httpx.Client, frames: int) -> None:
    """Print the table."""
    client.get("/readyz")
    say("| frame | sent as | processor, ms/frame | clock, ms/frame | in RAM after, MiB |")
    say("|---|---|---|---|---|")
    say(f"| none | | | | {resident(client):.0f} |")
    for size in SIZES:
        images = enlarged(size)
        name = f"{size[0]} x {size[1]}, {sum(map(len, images)) / len(images) / 1024:.0f} KiB"
        post(client, images[:1])  # the first of a size is slower
        rows = {"one by one": [[image] for image in islice(cycle(images), frames)]}
        rows["one patient"] = [list(islice(cycle(images), frames))]
        for sent_as, requests in rows.items():
            before, started = processor_s(client), time.perf_counter()
            for request in requests:
                post(client, request)
            spent, passed = processor_s(client) - before, time.perf_counter() - started
            per_frame = f"{spent * 1000 / frames:.1f} | {passed * 1000 / frames:.1f}"
            say(f"| {name} | {sent_as} | {per_frame} | {resident(client):.0f} |")
    document = {"patients": [{"frames": [{"image": b64encode(one).decode()} for one in images]}]}
    document["patients"][0]["frames"] *= max(1, frames // len(images))
    client.post("/v1/polyp-detection", json=document).raise_for_status()
    say(f"| the last, as JSON | one patient | | | {resident(client):.0f} |")
    client.post("/v1/embeddings", json={"texts": ["a polyp in the colon"]}).raise_for_status()
    say(f"| a free text | | | | {resident(client):.0f} |")


def post(client: httpx.Client, images: Sequence[bytes]) -> None:
    """Have frames scored as one patient."""
    files = [("frames", ("frame.jpg", image)) for image in images]
    client.post("/v1/polyp-detection", files=files).raise_for_status()


def processor_s(client: httpx.Client) -> float:
    """Seconds of processor time that the service has used."""
    return figure(client, "process_cpu_seconds_total")


def resident(client: httpx.Client) -> float:
    """Memory in RAM, in MiB."""
    return figure(client, "process_resident_memory_bytes") / _MIB


def figure(client: httpx.Client, name: str) -> float:
    """One figure of the service's."""
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name:
                return sample.value
    raise LookupError(f"expected the figure {name}; found none")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
