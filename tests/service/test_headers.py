"""Headers that keep an answer out of caches, frames and other sites' pages: on every answer."""

import httpx
import pytest

from tests.service.conftest import Running, image
from tests.service.test_wire import sent

PNG = {"Content-Type": "image/png"}
FIXED = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/malignancy", 200),
        ("POST", "/v1/embeddings", 200),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("HEAD", "/v1/models", 200),
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/malignancy", 404),
        ("OPTIONS", "/v1/malignancy", 404),
        ("POST", "/v1/zero-shot", 422),
    ],
)
def test_answer_has_them(client: httpx.Client, method: str, path: str, status: int) -> None:
    content = image() if method == "POST" else None
    headers = {**PNG, "Origin": "http://elsewhere.example"}
    answer = client.request(method, path, content=content, headers=headers)
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in FIXED} == FIXED
    # No other site's page may read it, nor learn what runs here.
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "server" not in answer.headers


def test_documentation_may_run_its_own_script_alone(client: httpx.Client) -> None:
    answer = client.get("/docs")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; connect-src 'self'; ")
    assert "frame-ancestors 'none'" in policy
    rest = FIXED.keys() - {"content-security-policy"}
    assert {name: answer.headers.get(name) for name in rest} == {n: FIXED[n] for n in rest}


def test_what_is_no_http_is_answered_with_them(server: Running) -> None:
    head = sent(server.port, b"garbage\r\n\r\n").partition(b"\r\n\r\n")[0].decode().lower()
    assert {name: f"{name}: {value.lower()}" in head for name, value in FIXED.items()} == (
        dict.fromkeys(FIXED, True)
    )
