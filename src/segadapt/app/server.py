"""The app's server: where it listens, what it keeps, who may connect."""

import os
import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from segadapt.errors import UsageError
from segadapt.extras import need_package
from segadapt.verbosity import verbose

OLDEST = 6
"""Minimum major version of gradio; earlier ones pass styles and options differently."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self'; object-src 'none'; base-uri 'self'; frame-ancestors 'self'"
)
"""What browsers may load for the page: nothing from other hosts."""
GRACE = 1
"""Grace period in seconds for open connections when the app ends."""


@dataclass(frozen=True)
class Limits:
    """Limits per user."""

    upload: int = 200  # megabytes per file
    seconds: float = 60.0  # per clip
    waiting: int = 20  # requests in the queue


def need_gradio() -> None:
    """Raise UsageError when gradio is not installed, or too old."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # also read at import
    need_package("gradio", "app", "app", least=OLDEST)


def listening(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 is any free one. Raises UsageError for a port in use and for a foreign address."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except OSError as error:
        raise UsageError(f"{host} is no address", where="--host", remedy="Give 127.0.0.1 or 0.0.0.0.") from error
    bound = socket.socket(family, kind)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen()
    except OSError as error:
        bound.close()
        why = (error.strerror or str(error)).lower()
        remedy = "Give another one, or 0 for any that is free; for --host an address of this machine."
        raise UsageError(f"{port} on {host} cannot be listened on ({why})", where="--port", remedy=remedy) from error
    return bound


def web_app(blocks: Any, limits: Limits, host: str, style: dict[str, Any]) -> Any:
    """The interface as an ASGI application; on the loopback interface it only answers requests for this machine."""
    import gradio
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = gradio.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks,
        "/",
        show_error=False,
        max_file_size=limits.upload * 2**20,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        run_history=False,
        **style,
    )
    if host in LOOPBACK:  # else a foreign page could reach it under its own name for this machine (DNS rebinding)
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", "::1"])
    app.add_middleware(_Policy)
    return app


class _Policy:
    """Adds `POLICY` to every response."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        await self.app(scope, receive, sending)


def serve(
    app: Any,
    bound: socket.socket,
    ready: Callable[[], None],
    stopping: Callable[[Callable[[], None]], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is called once it does. `stopping` receives a function that stops it."""
    import uvicorn

    class Server(uvicorn.Server):  # type: ignore[misc, unused-ignore] # where gradio is not installed
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    # Connections cut at the end are no error; gradio reports failures in handlers.
    level = "info" if verbose() else "critical"
    server = Server(uvicorn.Config(app, log_level=level, timeout_graceful_shutdown=GRACE, lifespan="on"))
    if stopping is not None:
        stopping(lambda: setattr(server, "should_exit", True))
    with closing(bound):
        server.run(sockets=[bound])


def address(bound: socket.socket, host: str) -> str:
    """What to type into a browser on this machine."""
    port = bound.getsockname()[1]
    shown = "127.0.0.1" if host in ("0.0.0.0", "localhost") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"


def show(url: str) -> None:
    """Open a browser, which may take a while."""
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
