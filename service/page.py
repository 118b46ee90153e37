"""The page at `/`: the files of `service/static`, served as they stand there.

What is read in a browser is what is read in the repository: no bundler, no build, nothing from
another host. The page's own policy lets it run its scripts, ask this service, and nothing else.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["CONTENT_SECURITY_POLICY", "PATHS", "add_page"]

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "media-src blob:",  # a video that is sampled in the browser
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def _read() -> dict[str, tuple[bytes, str]]:
    folder = Path(__file__).parent / "static"
    return {
        "/" if path.name == "index.html" else f"/static/{path.name}": (
            path.read_bytes(),
            _TYPES[path.suffix],
        )
        for path in sorted(folder.iterdir())
        if path.suffix in _TYPES
    }


_FILES = _read()
PATHS = frozenset(_FILES)


def add_page(app: FastAPI) -> None:
    """Serve the page and its files, and no other path below `/static`."""
    for path, (content, media_type) in _FILES.items():
        app.add_api_route(path, _endpoint(content, media_type), include_in_schema=False)


def _endpoint(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_request: Request) -> Response:
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
        return Response(content, media_type=media_type, headers=headers)

    return endpoint
