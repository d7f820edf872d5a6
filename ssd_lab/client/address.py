"""Where a server is, and who asks."""

from __future__ import annotations

from dataclasses import dataclass, field

import httpx

from ssd_lab.errors import ConfigError, ServerError
from ssd_lab.settings import secret

CONNECT_S = 10.0
_LONGEST_REASON = 300  # characters of what a server says


@dataclass(frozen=True)
class Address:
    """A server's API. base: its URL with `/v1` and no slash at the end. key: sent as a bearer token, never shown."""

    base: str
    key: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str, key_variable: str | None = None) -> Address:
        """Of a URL with or without `/v1`, and the environment variable that holds the key.

        Raises ConfigError for what is no http URL, and for a variable that is not set.
        """
        try:
            parsed = httpx.URL(url.strip())
        except httpx.InvalidURL as error:
            raise ConfigError(f"{url!r} is no URL ({error}): write http://host:port") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ConfigError(f"{url!r} is no address of a server: write http://host:port")
        base = str(parsed.copy_with(query=None, fragment=None)).rstrip("/").removesuffix("/v1")
        return cls(f"{base}/v1", None if key_variable is None else secret(key_variable))

    @property
    def headers(self) -> dict[str, str]:
        """Of every request."""
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}


def timeouts(answer_s: float) -> httpx.Timeout:
    """Limits of a request. answer_s: longest silence before and within an answer."""
    return httpx.Timeout(answer_s, connect=min(CONNECT_S, answer_s))


def model_names(client: httpx.Client, address: Address) -> list[str]:
    """The models that a server has. Raises ServerError."""
    url = f"{address.base}/models"
    try:
        response = client.get(url, headers=address.headers)
    except httpx.HTTPError as error:
        raise unreachable(url, error) from error
    if response.status_code != httpx.codes.OK:
        raise refusal(url, response.status_code, response.text)
    try:
        names = [str(model["id"]) for model in response.json()["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(
            f"{url} answered with no list of models: is it an OpenAI-compatible server?", "no models"
        ) from error
    if not names:
        raise ServerError(f"{url} lists no model: load one there", "no models")
    return names


def unreachable(url: str, error: httpx.HTTPError) -> ServerError:
    """The error of a request that got no answer."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return ServerError(
            f"no server answers at {url} ({error or type(error).__name__}): is it running?", "no connection"
        )
    if isinstance(error, httpx.TimeoutException):
        return ServerError(f"{url} was silent for too long: raise the time limit, or look at the server", "timeout")
    return ServerError(f"the connection to {url} broke ({type(error).__name__}: {error})", "connection broke")


def refusal(url: str, status: int, body: str) -> ServerError:
    """The error of a request that the server refused, in the server's words."""
    said = " ".join(said_by(body).split())[:_LONGEST_REASON]
    hint = {401: ": give its key with --api-key-env", 403: ": give its key with --api-key-env"}.get(status, "")
    return ServerError(f"{url} answered {status}{hint}{f' ({said})' if said else ''}", f"http {status}")


def said_by(body: str) -> str:
    """The message in an error's body, as OpenAI, FastAPI and llama.cpp write it; else the body."""
    try:
        document = httpx.Response(200, text=body).json()
    except ValueError:
        return body
    return message_of(document)


def message_of(document: object) -> str:
    """The message in an error's JSON."""
    if isinstance(document, dict):
        for name in ("error", "message", "detail"):
            if name in document:
                return message_of(document[name])
    return document if isinstance(document, str) else str(document)
