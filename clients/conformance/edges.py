"""Lines of the contract about requests that are wrong, headers, errors and operations."""

import httpx
from kit import FRAME, Kit, Skipped, line, need

TASK = "polyp-detection"


@line("Duplicate ids, empty lists and a `frames` list of another length: 422 with a pointer")
def pointers(kit: Kit) -> None:
    """The pointer says where."""
    wrong = [
        kit.json(TASK, {"patients": [kit.patient(FRAME, patient_id="p")] * 2}),
        kit.json(TASK, {"patients": []}),
        kit.json(TASK, {"patients": [{"frames": []}]}),
        kit.form(TASK, [FRAME], {"frames": [{"frame_id": "a"}, {"frame_id": "b"}]}),
        kit.form(TASK, [FRAME, FRAME], {"frames": [{"frame_id": "a"}, {"frame_id": "a"}]}),
    ]
    for answer in wrong:
        document = kit.problem(answer, 422, "invalid_request")
        need(document.get("pointer", "").startswith("/"), "expected a JSON pointer")


@line("patient_id is [A-Za-z0-9._-]{1,64}; captured_at is RFC 3339; unknown options are 422")
def options(kit: Kit) -> None:
    """Each is refused, none ignored."""
    for told in (
        {"patient_id": "Jane Doe"},
        {"patient_id": "x" * 65},
        {"frames": [{"captured_at": "yesterday"}]},
        {"no_such_option": 1},
    ):
        kit.problem(kit.form(TASK, [FRAME], told), 422, "invalid_request")
    kit.problem(kit.form(TASK, [FRAME], {"device": "no-such"}), 422, "unknown_device")


@line("image is base64 of RFC 4648 section 4, no data URI")
def base64(kit: Kit) -> None:
    """Neither a data URI nor a truncated text."""
    for text in ("data:image/png;base64,AAAA", "AAA", "****"):
        body = {"patients": [{"frames": [{"image": text}]}]}
        kit.problem(kit.json(TASK, body), 422, "invalid_request")


@line("Malformed bodies are 400 malformed_request, other content types 415")
def malformed(kit: Kit) -> None:
    """As problem documents."""
    kit.problem(kit.one(TASK, b"{", "application/json"), 400, "malformed_request")
    kit.problem(kit.one(TASK, b"x", "text/plain"), 415, "unsupported_media_type")


@line("Over the limits of GET /v1/limits: 413 payload_too_large")
def limits(kit: Kit) -> None:
    """Counted before anything is looked at."""
    most = kit.get("/v1/limits").json()["max_patients"]
    body = {"patients": [{"frames": [{"image": "AAAA"}]}] * (most + 1)}
    kit.problem(kit.json(TASK, body), 413, "payload_too_large")


@line("X-Request-ID is echoed, or minted")
def request_id(kit: Kit) -> None:
    """In the header and in the body."""
    answer = kit.form(TASK, [FRAME], X_Request_ID="conformance-1")
    need(answer.headers["x-request-id"] == "conformance-1", "expected the header echoed")
    need(answer.json()["request_id"] == "conformance-1", "expected it in the body")
    one, two = (kit.form(TASK, [FRAME]).headers["x-request-id"] for _ in range(2))
    need(one and two and one != two, "expected ids of their own")


@line("X-Deadline-Ms (1-600000): work that cannot finish in time is 504 deadline_exceeded")
def deadline(kit: Kit) -> None:
    """Sixteen frames do not fit into a millisecond; 0 is no deadline."""
    answer = kit.form(TASK, [FRAME] * 16, X_Deadline_Ms="1")
    kit.problem(answer, 504, "deadline_exceeded")
    for text in ("0", "600001", "soon"):
        kit.problem(kit.form(TASK, [FRAME], X_Deadline_Ms=text), 422, "invalid_request")
    need(kit.form(TASK, [FRAME], X_Deadline_Ms="600000").status_code == 200, "expected 200")


@line("Unknown paths are 404 not_found; an unknown model is 404 unknown_model")
def not_found(kit: Kit) -> None:
    """As problem documents."""
    kit.problem(kit.get("/v1/no-such"), 404, "not_found")
    kit.problem(kit.get("/v1/models/no-such"), 404, "unknown_model")


@line("GET /healthz, /readyz, /docs and /openapi.json answer without a key")
def probes(kit: Kit) -> None:
    """What a balancer and a browser ask."""
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        status = httpx.get(kit.url + path).status_code
        need(status == 200, f"{path}: expected 200; found {status}")


@line("GET /v1/models, /v1/models/{name}, /v1/devices, /v1/limits describe the deployment")
def described(kit: Kit) -> None:
    """Manifest, card, label sets, operating points; at least one device."""
    name = kit.get("/v1/models").json()["models"][0]["name"]
    model = kit.get(f"/v1/models/{name}").json()
    for member in ("manifest", "card", "label_sets", "operating_points", "intended_use", "digest"):
        need(member in model, f"expected {member}")
    need(kit.get("/v1/devices").json()["devices"], "expected a device profile")
    told = kit.get("/v1/limits").json()
    for member in ("max_frames", "max_patients", "max_body_bytes", "max_frame_bytes"):
        need(told[member] > 0, f"expected {member}")


@line("Authorization: Bearer <key> where keys are on; without it 401 unauthenticated")
def keys(kit: Kit) -> None:
    """Neither no key nor a wrong one."""
    if kit.key is None:
        raise Skipped("no key was given, so keys are taken to be off")
    path = f"{kit.url}/v1/limits"
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        kit.problem(httpx.get(path, headers=headers), 401, "unauthenticated")
