"""The port: where the service listens, for whom, and over what.

Whoever can reach a port without keys may use it. So without a keys file only loopback is listened
on, unless the setting `allow_no_keys` says that something else decides who may ask: a proxy, a
container's published port, client certificates.
"""

import ipaddress
import socket
import ssl

from service.errors import SettingsInvalid
from service.settings import Settings

__all__ = ["listen", "load_certificate", "tls_context"]


def listen(settings: Settings, *, shared: bool = False) -> socket.socket:
    """Take the port before anything is announced; a port in use is one line, like all else.

    Args:
        settings: from `read_settings`.
        shared: whether other processes of the same user may listen on it too; the kernel then
            gives each new connection to one of them.

    Raises:
        SettingsInvalid: beyond loopback, without keys.
        OSError: the port cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that name the protocol; without it every answer on a
    # kept connection waits 40 ms for a delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind(listener, settings)
        _check_keys(listener, settings)
        listener.listen(2048)
        listener.set_inheritable(False)
    except BaseException:
        listener.close()
        raise
    return listener


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Make what TLS needs, or None where no certificate is set.

    Returns:
        TLS 1.2 or newer, the library's ciphers; with `tls_client_ca` a client must show a
        certificate. Loading the files into it again serves the new ones to new connections.

    Raises:
        SettingsInvalid: one without the other, or a file that cannot be used; one line.
    """
    if settings.tls_cert is None and settings.tls_key is None:
        if settings.tls_client_ca is not None:
            raise SettingsInvalid("ENDOCLIP_TLS_CLIENT_CA needs ENDOCLIP_TLS_CERT")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, settings)
    if settings.tls_client_ca is not None:
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except (OSError, ValueError) as error:
            raise SettingsInvalid(
                f"ENDOCLIP_TLS_CLIENT_CA: {settings.tls_client_ca}: {_reason(error)}"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def load_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    """Load certificate and key, as they are now.

    Raises:
        SettingsInvalid: a file that cannot be used; one line.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        raise SettingsInvalid("ENDOCLIP_TLS_CERT and ENDOCLIP_TLS_KEY need one another")
    try:
        context.load_cert_chain(
            settings.tls_cert,
            settings.tls_key,
            password="",  # nosec B106  # no passphrase: without this OpenSSL asks the terminal
        )
    except (OSError, ValueError) as error:
        raise SettingsInvalid(
            f"ENDOCLIP_TLS_CERT, ENDOCLIP_TLS_KEY: {settings.tls_cert}, {settings.tls_key}: "
            f"{_reason(error)}"
        ) from error


def _bind(listener: socket.socket, settings: Settings) -> None:
    try:
        listener.bind((settings.host, settings.port))
    except (OSError, UnicodeError) as error:
        raise OSError(f"cannot listen on {settings.host}:{settings.port}: {error}") from error


def _check_keys(listener: socket.socket, settings: Settings) -> None:
    # What was bound, not what was written: `localhost` may be any address.
    address = ipaddress.ip_address(listener.getsockname()[0])
    if not address.is_loopback and settings.keys is None and not settings.allow_no_keys:
        raise SettingsInvalid(
            f"expected a keys file to listen on {settings.host}, where others can reach it; found "
            "none. Make one with `python -m service keys add --file keys.json --name NAME --scope "
            "score` and set ENDOCLIP_KEYS=keys.json, or set ENDOCLIP_ALLOW_NO_KEYS=true where "
            "something in front decides who may ask"
        )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
