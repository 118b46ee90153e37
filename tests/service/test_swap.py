"""Bundles are exchanged under a running service: nobody notices, or nothing happens."""

import gc
import json
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.bundle import Bundle
from model_store.profile import write_profile
from model_store.quality import QualityLimits
from service.__main__ import main
from service.models import Refusal
from tests.service.conftest import BETWEEN, Running, Serve, as_form, edited, image, problem_of
from tests.service.keys_file import add_key, bearer
from tests.service.test_operations import figures
from tests.tiny_bundle import RED, build_tiny_bundle
from tests.tiny_profile import tiny_profile
from tests.waiting import wait_until

ADMIN = "/v1/admin/models"
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles that can be served, and folders that cannot."""
    root = tmp_path_factory.mktemp("bundles")
    gate = QualityLimits.open_gate().as_dict() | {"min_lit_share": 0.2}
    one = build_tiny_bundle(root / "one", quality_gate=gate)
    two = build_tiny_bundle(root / "two", quality_gate=gate, version="2.0.0", mean_shift=0.05)
    flipped = shutil.copytree(two, root / "flipped") / "image_tower.onnx"
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)

    def move(canaries: Any) -> None:
        canaries["frames"][0]["probability"]["malignancy"] += 0.1

    edited(one, root / "moved", "canaries.json", move)
    manifest = shutil.copytree(one, root / "future") / "manifest.json"
    document = json.loads(manifest.read_text()) | {"format_version": 99}
    manifest.write_text(json.dumps(document))
    (root / "empty").mkdir()
    (root / "link").symlink_to(one, target_is_directory=True)
    (root.parent / "outside").mkdir(exist_ok=True)
    return root


@pytest.fixture
def up(serve: Serve, root: Path) -> Iterator[Running]:
    with serve(bundle=root / "one", bundles=root, health_interval_s=3600) as up:
        yield up


@pytest.fixture(scope="module")
def still(serve: Serve, root: Path) -> Iterator[Running]:
    """One for all tests that change nothing."""
    with serve(bundle=root / "one", bundles=root) as up:
        yield up


def asked(up: Running, action: str, **body: Any) -> httpx.Response:
    return (
        up.client.post(f"{ADMIN}/{action}", json=body)
        if body
        else up.client.post(f"{ADMIN}/{action}")
    )


def digest(root: Path, folder: str) -> str:
    return Bundle.open(root / folder, verify=False).digest


def served(up: Running) -> str:
    answer = up.client.post("/v1/malignancy", content=image(), headers=PNG)
    assert answer.status_code == 200
    return str(answer.json()["model"]["digest"])


def test_bundle_is_loaded_rolled_back_and_told(up: Running, root: Path) -> None:
    one, two = digest(root, "one"), digest(root, "two")
    before = up.client.get(ADMIN).json()
    assert (before["active"]["digest"], before["previous"]) == (one, None)
    assert [found["folder"] for found in before["available"]] == ["flipped", "moved", "one", "two"]
    now = asked(up, "load", bundle="two", digest=two).json()
    assert (now["active"]["digest"], now["active"]["version"]) == (two, "2.0.0")
    assert now["active"]["ready"] is True
    assert now["previous"]["digest"] == now["configured"]["digest"] == one
    assert served(up) == two
    assert up.client.get("/v1/models").json()["models"][0]["digest"] == two
    assert [key[2] for key in figures(up.client) if key[0] == "endoclip_model_info"] == [
        "CPUExecutionProvider"
    ]
    back = asked(up, "rollback").json()
    assert (back["active"]["digest"], back["previous"]["digest"]) == (one, two)
    assert served(up) == one
    assert asked(up, "rollback").json()["active"]["digest"] == two
    found = figures(up.client)
    assert found[("endoclip_model_changes_total", "load", "ok")] == 1
    assert found[("endoclip_model_changes_total", "rollback", "ok")] == 2


def test_bundle_that_is_served_already_is_left_as_it_is(up: Running) -> None:
    engine = up.app.state.engine
    assert asked(up, "load", bundle="one").json()["previous"] is None
    assert up.app.state.engine is engine
    engine.encoder.provider = "CUDAExecutionProvider"  # as if the runtime had fallen back
    engine.health.suspect()
    wait_until(lambda: up.client.get("/readyz").status_code == 503)
    answer = asked(up, "load", bundle="one").json()
    assert (answer["active"]["ready"], answer["previous"]) == (True, None)
    assert up.client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("body", "reason", "said"),
    [
        ({"bundle": "flipped"}, Refusal.BUNDLE_CORRUPT, "image_tower.onnx: expected sha256"),
        ({"bundle": "moved"}, Refusal.SELF_TEST_FAILED, "canary scores"),
        ({"bundle": "future"}, Refusal.BUNDLE_INCOMPATIBLE, "expected format_version"),
        ({"bundle": "empty"}, Refusal.BUNDLE_NOT_FOUND, "manifest.json"),
        ({"bundle": "two", "digest": "sha256:" + "0" * 64}, Refusal.DIGEST_DIFFERS, "sha256:000"),
    ],
)
def test_bundle_that_cannot_be_served_is_refused_and_the_old_one_serves_on(
    up: Running, root: Path, body: dict[str, str], reason: Refusal, said: str
) -> None:
    threads = threading.active_count()
    for action in ("load", "shadow"):
        problem = problem_of(asked(up, action, **body), 409, "conflict")
        assert problem["reason"] == reason
        assert said in problem["detail"]
        assert str(root) not in json.dumps(problem)
    assert served(up) == digest(root, "one")
    state = up.client.get(ADMIN).json()
    assert (state["previous"], state["shadow"]) == (None, None)
    assert figures(up.client)[("endoclip_model_changes_total", "load", "refused")] == 1
    assert up.client.get("/readyz").status_code == 200
    wait_until(lambda: threading.active_count() <= threads + 4)


@pytest.mark.parametrize("name", ["link", "nothing", "one.part"])
def test_only_folders_of_their_own_are_found(still: Running, name: str) -> None:
    problem_of(asked(still, "load", bundle=name), 404, "unknown_model")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../outside", "/etc", "one/", "one/canaries", "one\\x", "a\u0000", "é"]
)
def test_no_path_can_be_named(still: Running, name: str) -> None:
    problem = problem_of(asked(still, "load", bundle=name), 422, "invalid_request")
    assert problem["pointer"] == "/bundle"


def test_wrong_requests_are_errors_of_the_table(still: Running) -> None:
    for body in ({"bundle": 1}, {"bundle": "one", "more": 1}, {"digest": "x"}, []):
        answer = still.client.post(f"{ADMIN}/load", json=body)
        problem_of(answer, 422, "invalid_request")
    for content, status, code in (
        (b"null", 422, "invalid_request"),
        (b"{", 400, "malformed_request"),
        (b" " * 5000, 413, "payload_too_large"),
    ):
        answer = still.client.post(
            f"{ADMIN}/load", content=content, headers={"Content-Type": "application/json"}
        )
        problem_of(answer, status, code)
    problem_of(
        still.client.post(f"{ADMIN}/load", data={"bundle": "two"}), 415, "unsupported_media_type"
    )
    assert problem_of(asked(still, "rollback"), 409, "conflict")["reason"] == Refusal.NO_PREVIOUS


def test_without_a_folder_of_bundles_none_can_be_loaded(server: Running) -> None:
    problem = problem_of(asked(server, "load", bundle="two"), 409, "conflict")
    assert problem["reason"] == Refusal.NO_BUNDLES
    assert server.client.get(ADMIN).json()["available"] == []


def test_previous_bundle_that_has_changed_is_not_rolled_back_to(
    serve: Serve, root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / "one", tmp_path / "one")
    with serve(bundle=tmp_path / "one", bundles=root) as up:
        assert asked(up, "load", bundle="two").status_code == 200
        shutil.rmtree(tmp_path / "one")
        problem = problem_of(asked(up, "rollback"), 409, "conflict")
        assert problem["reason"] == Refusal.BUNDLE_NOT_FOUND
        build_tiny_bundle(tmp_path / "one", version="1.0.1")
        problem = problem_of(asked(up, "rollback"), 409, "conflict")
        assert problem["reason"] == Refusal.DIGEST_DIFFERS
        assert served(up) == digest(root, "two")
        assert up.client.get("/readyz").status_code == 200  # the old folder is nobody's any more


def test_site_profile_must_fit_and_comes_back_with_its_bundle(
    serve: Serve, root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "site-profile.json"
    path.write_bytes(write_profile(tiny_profile(Bundle.open(root / "one"))))
    with serve(bundle=root / "one", bundles=root, site_profile=path) as up:
        problem = problem_of(asked(up, "load", bundle="two"), 409, "conflict")
        assert problem["reason"] == Refusal.PROFILE_MISMATCH
        path.write_bytes(write_profile(tiny_profile(Bundle.open(root / "two"), site="site-2")))
        assert asked(up, "load", bundle="two").status_code == 200
        assert up.client.get("/v1/models/tiny").json()["site_profile"]["site"] == "site-2"
        path.unlink()
        assert asked(up, "rollback").status_code == 200
        assert up.client.get("/v1/models/tiny").json()["site_profile"]["site"] == "site-1"
        problem = problem_of(asked(up, "load", bundle="two"), 409, "conflict")
        assert problem["reason"] == Refusal.PROFILE_MISMATCH


def test_second_change_meanwhile_is_refused(up: Running) -> None:
    held = threading.Event()
    up.app.state.models._thread.submit(held.wait)  # where bundles are opened
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, f"{up.client.base_url}{ADMIN}/load", json={"bundle": "two"})
        try:
            wait_until(lambda: up.app.state.models._changing)
            for answer in (asked(up, "load", bundle="two"), up.client.delete(f"{ADMIN}/shadow")):
                assert problem_of(answer, 409, "conflict")["reason"] == Refusal.BUSY
            assert up.client.get(ADMIN).status_code == 200
        finally:
            held.set()
        assert first.result().status_code == 200


def test_with_keys_only_the_admin_scope_changes_bundles(
    serve: Serve, root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    score, admin = add_key(path, "score"), add_key(path, "admin")
    with serve(bundle=root / "one", bundles=root, keys=path) as up:
        call = {"url": f"{ADMIN}/load", "json": {"bundle": "two"}}
        problem_of(up.client.post(**call), 401, "unauthenticated")
        problem_of(up.client.post(**call, headers=bearer(score)), 403, "forbidden")
        assert up.client.post(**call, headers=bearer(admin)).status_code == 200
        problem_of(up.client.get(ADMIN, headers=bearer(score)), 403, "forbidden")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:8000"},
        {"Host": "127.0.0.1.evil.example"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
        {"Via": "1.1 proxy"},
        {"Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
)
def test_without_keys_nobody_administers_from_elsewhere(
    still: Running, headers: dict[str, str]
) -> None:
    problem_of(still.client.get(ADMIN, headers=headers), 403, "forbidden")
    sent = still.client.post(f"{ADMIN}/load", json={"bundle": "two"}, headers=headers)
    problem_of(sent, 403, "forbidden")


# ---- under load ----------------------------------------------------------------------------------


@contextmanager
def asking(up: Running, clients: int, seen: list[tuple[int, str, float]]) -> Iterator[None]:
    """Ask all the time; notes status, digest and probability of each answer."""
    over = threading.Event()
    bodies = [{"content": image(BETWEEN), "headers": PNG}, as_form([image(BETWEEN)] * 3)]

    def ask(number: int) -> None:
        with httpx.Client(base_url=up.client.base_url, timeout=30) as client:
            while not over.is_set():
                answer = client.post("/v1/malignancy", **bodies[number % 2])
                told = answer.json()
                first = told.get("patients", [{"frames": [{"probability": -1.0}]}])[0]
                digest = told.get("model", {}).get("digest", "")
                seen.append((answer.status_code, digest, first["frames"][0]["probability"]))

    with ThreadPoolExecutor(clients) as pool:
        asked = [pool.submit(ask, number) for number in range(clients)]
        try:
            yield
        finally:
            over.set()
        for one in asked:
            one.result()


def test_no_request_fails_through_swaps_and_each_is_answered_by_the_bundle_it_names(
    up: Running, root: Path
) -> None:
    seen: list[tuple[int, str, float]] = []
    right = {}
    for folder in ("two", "one"):
        assert asked(up, "load", bundle=folder).status_code == 200
        answer = up.client.post("/v1/malignancy", content=image(BETWEEN), headers=PNG).json()
        right[answer["model"]["digest"]] = answer["patients"][0]["probability"]
    assert len(set(right.values())) == 2
    with asking(up, 4, seen):
        for folder in ("two", "one") * 4:
            count = len(seen)
            assert asked(up, "load", bundle=folder).status_code == 200
            assert served(up) == digest(root, folder)
            assert problem_of(asked(up, "load", bundle="flipped"), 409, "conflict")
            # A default, for the loop's next round has another count; mypy cannot infer it.
            wait_until(lambda count=count: len(seen) > count + 8)  # type: ignore[misc]
    assert {status for status, _, _ in seen} == {200}
    assert {digest for _, digest, _ in seen} == set(right)
    for _, by, probability in seen:
        assert probability == pytest.approx(right[by], abs=1e-6)


def test_request_that_has_begun_ends_with_its_bundle_which_is_then_let_go(
    up: Running, root: Path
) -> None:
    engine = up.app.state.engine
    gone = weakref.ref(engine)
    held = threading.Event()
    for _ in range(up.app.state.settings.decode_threads):
        engine._pool.submit(held.wait)
    with ThreadPoolExecutor(1) as pool:
        url = f"{up.client.base_url}/v1/malignancy"
        late = pool.submit(httpx.post, url, content=image(), headers=PNG, timeout=30)
        try:
            wait_until(lambda: figures(up.client)[("endoclip_pending_frames",)] == 1)
            assert asked(up, "load", bundle="two").status_code == 200
            assert served(up) == digest(root, "two")
            assert engine._batcher.alive
        finally:
            held.set()
        assert late.result().json()["model"]["digest"] == digest(root, "one")
    threads = (*engine._batcher._threads, engine.health._thread)
    del engine
    wait_until(lambda: not any(thread.is_alive() for thread in threads))
    wait_until(lambda: gc.collect() >= 0 and gone() is None)


def test_frame_of_an_exchanged_bundle_is_red_in_both(up: Running) -> None:
    for folder in ("two", "one"):
        asked(up, "load", bundle=folder)
        answer = up.client.post("/v1/malignancy", content=image(RED), headers=PNG).json()
        assert answer["patients"][0]["decision"] == "positive"


# ---- the command ---------------------------------------------------------------------------------


def ran(up: Running, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """Run `python -m service models`; gives what it says, which is one line when it failed."""
    assert main(["models", *words, "--url", str(up.client.base_url)]) == code
    out, err = capsys.readouterr()
    assert (err == "") == (code == 0)
    assert err.count("\n") == (code != 0)
    return out or err


def test_command_exchanges_bundles_and_shows_them(
    up: Running, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(up, capsys, "list").splitlines()[1].split()[:4] == ["active", "one", "tiny", "1.0.0"]
    said = ran(up, capsys, "load", "two", "--digest", digest(root, "two"))
    assert said.splitlines()[1].split()[:4] == ["active", "two", "tiny", "2.0.0"]
    assert ran(up, capsys, "rollback").splitlines()[2].split()[:2] == ["previous", "two"]
    assert "shadow " in ran(up, capsys, "shadow", "two")
    up.client.post("/v1/malignancy", content=image(), headers=PNG)
    wait_until(lambda: "1 of 1 patients decided alike" in ran(up, capsys, "list"))
    assert "shadow" not in ran(up, capsys, "shadow", "--end")
    assert json.loads(ran(up, capsys, "list", "--json"))["shadow"] is None
    assert "conflict (self_test_failed): " in ran(up, capsys, "load", "moved", code=2)
    assert "unknown_model: " in ran(up, capsys, "load", "nothing", code=2)


def test_command_sends_its_key_and_says_what_is_wrong(
    serve: Serve, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, file = tmp_path / "keys.json", tmp_path / "admin.key"
    file.write_text(add_key(keys, "admin") + "\n")
    with serve(bundle=root / "one", bundles=root, keys=keys) as up:
        assert "unauthenticated: " in ran(up, capsys, "list", code=2)
        assert "active" in ran(up, capsys, "list", "--key-file", str(file))
        file.write_text("two keys\n")
        assert "one key" in ran(up, capsys, "list", "--key-file", str(file), code=2)
    assert "expected a running service" in ran(up, capsys, "list", code=2)
    assert main(["models", "list", "--url", "file:///etc/passwd"]) == 2
