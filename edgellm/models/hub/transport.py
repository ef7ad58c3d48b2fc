"""How requests reach the Hub: through the proxy, and with the certificates, that the environment names.

    client = httpx2.Client(transport=EnvironmentTransport(), follow_redirects=True)
    proxy_for("https://huggingface.co")     # Proxy("HTTPS_PROXY", "http://proxy:3128"), or None

The library's own client reads the environment as a whole when it is made, and fails on what no request would use: a
SOCKS proxy for other hosts, or a certificate file where there is no TLS.
"""

from __future__ import annotations

import os
import re
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import httpx2

from edgellm.errors import NetworkError

# Certificates in place of the system's: OpenSSL's variable, then those of requests and curl, which people set as well.
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
EXAMPLE = "http://host:port"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the variable that names it."""

    variable: str
    url: str

    def __str__(self) -> str:
        return f"{self.variable}={_without_password(self.url)}"


class EnvironmentTransport(httpx2.BaseTransport):
    """Sends each request through the proxy that the environment has for its address, or directly."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, Proxy | None], httpx2.HTTPTransport] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; `NetworkError` names the variable that makes it impossible."""
        scheme, proxy = request.url.scheme, proxy_for(str(request.url))
        if (scheme, proxy) not in self._routes:
            self._routes[scheme, proxy] = _route(scheme, proxy)
        return self._routes[scheme, proxy].handle_request(request)

    def close(self) -> None:
        """Close all connections."""
        for route in self._routes.values():
            route.close()


def proxy_for(url: str) -> Proxy | None:
    """The proxy for an address: HTTPS_PROXY or HTTP_PROXY, else ALL_PROXY, unless NO_PROXY excludes the host."""
    parts, proxies = httpx2.URL(url), getproxies()
    for kind in (parts.scheme, "all"):
        if address := proxies.get(kind, "").strip():
            if proxy_bypass(parts.netloc.decode("ascii")):
                return None
            names = (f"{kind}_proxy", f"{kind.upper()}_PROXY")
            variable = next((name for name in names if os.environ.get(name)), f"the system's {kind} proxy")
            return Proxy(variable, address if "://" in address else f"http://{address}")
    return None


def certificates() -> ssl.SSLContext:
    """The certificates to trust.

    Raises:
        NetworkError: a variable names a file that is not there, or holds none.
    """
    for variable in CERTIFICATES:
        if value := os.environ.get(variable):
            return _certificates_in(Path(os.path.expanduser(value)), variable)  # noqa: PTH111, raises for unknown users
    return httpx2.create_ssl_context()


def _certificates_in(path: Path, variable: str) -> ssl.SSLContext:
    what, hint = f"{variable} is {path}", f"unset {variable}, or its right path"
    if not path.exists():
        raise NetworkError(f"{what}, which is not there", hint=hint)
    try:
        place = str(path)
        return ssl.create_default_context(capath=place) if path.is_dir() else ssl.create_default_context(cafile=place)
    except (ssl.SSLError, OSError) as error:
        raise NetworkError(f"{what}, which holds no certificates", why=str(error), hint=hint) from error


def _route(scheme: str, proxy: Proxy | None) -> httpx2.HTTPTransport:
    """A way to the hosts of a scheme; `NetworkError` if the proxy is none."""
    uses_tls = scheme == "https" or (proxy is not None and proxy.url.lower().startswith("https:"))
    verify: ssl.SSLContext | bool = certificates() if uses_tls else False
    if proxy is None:
        return httpx2.HTTPTransport(verify=verify)
    try:
        if not httpx2.URL(proxy.url).host:
            raise ValueError("it has no host")
        ssl_context = certificates() if proxy.url.lower().startswith("https:") else None
        return httpx2.HTTPTransport(verify=verify, proxy=httpx2.Proxy(proxy.url, ssl_context=ssl_context))
    except ImportError as error:
        what = f"{proxy} is a SOCKS proxy, which needs one more package"
        raise NetworkError(what, why=str(error), hint=f"{sys.executable} -m pip install socksio") from error
    except (ValueError, httpx2.InvalidURL) as error:
        if (found := re.match(r"socks\w*:", proxy.url)) is not None:
            why, hint = f"{found[0]}// is not a kind that edgellm knows", f"{proxy.variable}=socks5://host:port"
        else:
            why, hint = _without_password(str(error)), f"{proxy.variable}={EXAMPLE}, or unset {proxy.variable}"
        raise NetworkError(f"{proxy} is not the address of a proxy", why=why, hint=hint) from error


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//***@", text)
