"""Everything an operator may set: `ENDOCLIP_*` environment variables, read once at the start.

Nothing here is read on import. A variable with the prefix that names no setting is refused, so a
typing error cannot pass for a setting that has no effect.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import model_store
from model_store.cores import usable_cores
from model_store.encoder import CPU
from model_store.errors import BundleNotFound
from model_store.profile import SiteProfile, read_profile
from service.errors import SettingsInvalid
from service.logs import LogFormat

__all__ = [
    "FULL_FRAME",
    "Box",
    "Settings",
    "newest_bundle",
    "read_devices",
    "read_settings",
    "read_site_profile",
]

Box = tuple[float, float, float, float]
FULL_FRAME: Box = (0.0, 0.0, 1.0, 1.0)
_PREFIX = "ENDOCLIP_"
_DEVICE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MIB = 1024 * 1024


class Settings(BaseModel):
    """The service's settings; each description says what raising the value costs.

    Nothing is read from the environment here; `read_settings` does that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path | None = Field(
        default=None, description="Bundle folder. Unset: the newest one shipped with model_store."
    )
    bundles: Path | None = Field(
        default=None,
        description="Folder of bundle folders, which an administrator may load by name while the "
        "service runs. Unset: none.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 is everyone.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port; 0 takes a free one.")
    keys: Path | None = Field(
        default=None,
        description="Keys file of `python -m service keys`. Unset: nobody is asked for a key, and "
        "only loopback is listened on.",
    )
    allow_no_keys: bool = Field(
        default=False,
        description="Listen beyond loopback without keys: whoever reaches the port may score.",
    )
    tls_cert: Path | None = Field(
        default=None, description="PEM file of the server's certificate and its chain: HTTPS."
    )
    tls_key: Path | None = Field(
        default=None, description="PEM file of the certificate's key, without a passphrase."
    )
    tls_client_ca: Path | None = Field(
        default=None,
        description="PEM file of authorities: only clients with a certificate of theirs connect.",
    )
    provider: Literal["CPUExecutionProvider", "CUDAExecutionProvider"] = Field(
        default="CPUExecutionProvider",
        description="ONNX Runtime execution provider. One that is not there is an error, not a "
        "silent fall back.",
    )
    allow_cpu_fallback: bool = Field(
        default=False,
        description="Start on the CPU where the provider cannot be had; answers and metrics say "
        "what runs. Ten times slower is then no error.",
    )
    health_interval_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Seconds between checks of canaries, provider and bundle folder. Raising it "
        "lets a fault go unseen for longer.",
    )
    encode_threads: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Threads of one graph run; a CPU does as many runs at a time as its usable "
        "cores have threads for. More than one makes a frame alone quicker, all others slower.",
    )
    decode_threads: int = Field(
        default_factory=lambda: max(2, usable_cores()),
        ge=1,
        le=256,
        description="Threads that decode frames; each holds one frame, of 4 to 14 bytes a pixel.",
    )
    max_batch: int = Field(
        default=4,
        ge=1,
        le=256,
        description="Frames a graph run takes at most. More helps a GPU; on a CPU, where eight "
        "frames take eight times as long as one, it only makes other callers wait longer.",
    )
    max_body_bytes: int = Field(
        default=256 * _MIB, ge=1024, description="Body of a request, in bytes; held in memory."
    )
    max_frame_bytes: int = Field(default=32 * _MIB, ge=64, description="File of a frame, in bytes.")
    max_frame_pixels: int = Field(
        default=64_000_000,
        ge=4096,
        le=178_956_970,  # Pillow's own limit, twice its MAX_IMAGE_PIXELS
        description="Pixels of a frame; decoding holds 4 bytes for each (with transparency 14), "
        "per decode thread.",
    )
    min_side_px: int = Field(default=64, ge=1, description="Shorter side of a frame, at least.")
    max_frames: int = Field(default=512, ge=1, description="Frames of a request, all patients.")
    max_patients: int = Field(default=64, ge=1, description="Patients of a request.")
    grace_s: float = Field(
        default=30.0,
        ge=3,
        le=3600,
        description="Seconds from SIGTERM to the end of the process, at most. What is not done by "
        "then is answered 503; raise it to the time of the largest exam.",
    )
    drain_s: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="Seconds after SIGTERM for which an idle service still listens and answers "
        "503, so that balancers that ask for readiness notice.",
    )
    max_pending_frames: int = Field(
        default=1024,
        ge=1,
        description="Frames admitted and not yet answered, all requests; a text or a prompt counts "
        "as one. Beyond it requests are `overloaded`.",
    )
    max_pending_bytes: int = Field(
        default=512 * _MIB,
        ge=1024,
        description="Bytes of all bodies in memory; reading JSON takes up to three times as much.",
    )
    max_pending_pixels: int = Field(
        default=5_000_000_000,
        ge=4096,
        description="Pixels of all admitted frames, by their headers. They are decoded a frame a "
        "thread, so this bounds time, not memory.",
    )
    client_patience_s: float = Field(
        default=20.0,
        gt=0,
        le=3600,
        description="Seconds that a client may take for the head of a request, or lag behind "
        "32 KiB a second with its body or in reading its answer. Raising it lets slow clients hold "
        "what they sent and asked for.",
    )
    max_queue_s: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="Seconds that a request may take beyond the time of its own frames, at the "
        "measured rate. Raising it turns refusals into waiting.",
    )
    devices: Path | None = Field(
        default=None,
        description='JSON file of device profiles, {"name": [x0, y0, x1, y1]}: the box of the '
        "endoscope image as fractions of the upright frame.",
    )
    site_profile: Path | None = Field(
        default=None,
        description="site-profile.json of `training fewshot profile`: local probabilities and "
        "thresholds, and an adapter where it has one. It must belong to the bundle.",
    )
    exam_store: str | None = Field(
        default=None,
        description="Where exams are kept: path of an SQLite file, or postgresql://… (extra "
        "`postgres`). Unset: exams.sqlite3 in the user's state folder, made with the first exam.",
    )
    exam_retention_h: float = Field(
        default=168.0,
        gt=0,
        le=87_600,
        description="Hours after its last change at which an exam is removed, open or closed.",
    )
    max_exams: int = Field(
        default=1000, ge=1, description="Exams that one client may have, closed ones included."
    )
    max_exam_frames: int = Field(
        default=4096,
        ge=1,
        le=100_000,
        description="Frames of an exam. Each takes 1 KiB of the store, and asking for the result "
        "reads them all.",
    )
    audit_log: Path | None = Field(
        default=None,
        description="Hash-chained audit log of exams, checked by `endo-clip-audit`; for "
        "one process. Unset: none. It only grows.",
    )
    max_streams: int = Field(
        default=16,
        ge=1,
        le=1000,
        description="Live streams at once; each holds 12 MiB of frames at most.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log lines that are written."
    )
    log_format: LogFormat = Field(
        default="json", description="JSON for machines or text for people; one line each."
    )
    traces_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^/\s]+/\S*$",
        description="Where traces go: URL of an OpenTelemetry collector, OTLP over HTTP, path "
        "included. Needs the extra `traces`.",
    )

    def encode_workers(self, provider: str) -> int:
        """Give the number of graph runs at a time.

        Threads that share a run wait for one another at each layer. With other work on the cores,
        as decoding always is, a frame then takes up to half as much processor time again (one
        thread 9.5 ms, two 12 to 15). A GPU runs one graph at a time.

        Args:
            provider: the execution provider that is used.
        """
        return max(1, usable_cores() // self.encode_threads) if provider == CPU else 1


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings from the environment.

    Args:
        environment: the process's variables; only those with the prefix are looked at, and an empty
            one counts as unset.

    Returns:
        The settings.

    Raises:
        SettingsInvalid: one line that names every variable at fault and the rule it broke.
    """
    known = {_PREFIX + name.upper() for name in Settings.model_fields}
    given = {key for key in environment if key.upper().startswith(_PREFIX)}
    faults = [f"{key} is not a setting" for key in sorted(given - known)]
    values = {
        key.removeprefix(_PREFIX).lower(): environment[key]
        for key in sorted(given & known)
        if environment[key] != ""
    }
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        faults += [_fault(item) for item in error.errors(include_url=False)]
    if settings is None or faults:
        raise SettingsInvalid("; ".join(faults))
    return settings


def newest_bundle(folder: Path | None = None) -> Path:
    """Find the bundle to serve when none is set.

    Args:
        folder: where to look; the bundles shipped inside `model_store` when None.

    Returns:
        The bundle whose manifest was created last (by its own `created`, ties by name).

    Raises:
        BundleNotFound: no folder there has a manifest.
    """
    folder = folder or Path(next(iter(model_store.__path__))) / "bundles"
    found = [path.parent for path in folder.glob("*/manifest.json")]
    if not found:
        raise BundleNotFound(str(folder))
    return max(found, key=lambda path: (_created(path), path.name))


def read_devices(path: Path | None) -> dict[str, Box]:
    """Read the device profiles.

    Args:
        path: the JSON file of the setting `devices`, or None for the built-in profile alone.

    Returns:
        Name to crop box (x0, y0, x1, y1), fractions 0-1; `full_frame` is always the first.

    Raises:
        SettingsInvalid: the file is missing, is not JSON, or breaks a rule; one line.
    """
    devices = {"full_frame": FULL_FRAME}
    if path is None:
        return devices
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsInvalid(f"{_PREFIX}DEVICES: {path}: {error}") from error
    if not isinstance(table, dict):
        raise SettingsInvalid(f"{_PREFIX}DEVICES: {path}: expected an object of profiles")
    for name, box in table.items():
        if name in devices or not _DEVICE_NAME.fullmatch(name):
            raise SettingsInvalid(
                f"{_PREFIX}DEVICES: {path}: expected a new name of [A-Za-z0-9._-], 1 to 64 long; "
                f"found {name!r}"
            )
        devices[name] = _box(box, f"{_PREFIX}DEVICES: {path}: {name}")
    return devices


def read_site_profile(path: Path | None) -> SiteProfile | None:
    """Read the site profile of the setting, or give None where none is set.

    Raises:
        SettingsInvalid: the file cannot be read; one line.
        BundleCorrupt: it is not a site profile.
    """
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsInvalid(f"{_PREFIX}SITE_PROFILE: {error}") from error
    return read_profile(data, path.name)


def _box(value: Any, where: str) -> Box:
    numbers = isinstance(value, list) and all(type(item) in (int, float) for item in value)
    if numbers and len(value) == 4:
        x0, y0, x1, y1 = (float(item) for item in value)
        if 0.0 <= x0 < x1 <= 1.0 and 0.0 <= y0 < y1 <= 1.0:
            return x0, y0, x1, y1
    raise SettingsInvalid(
        f"{where}: expected [x0, y0, x1, y1] with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1; "
        f"found {json.dumps(value)[:80]}"
    )


def _created(bundle: Path) -> str:
    # Only the order is wanted here; what is wrong with a manifest is said when it is opened.
    try:
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        return str(manifest["created"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _fault(item: Any) -> str:
    name = _PREFIX + str(item["loc"][0]).upper() if item["loc"] else _PREFIX
    return f"{name}: {item['msg']}, found {str(item['input'])[:80]!r}"
