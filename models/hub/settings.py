"""HubSettings: where the hub and its cache are, as Hugging Face's own environment variables say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from drift_edge.errors import UsageError

DEFAULT_ENDPOINT = "https://huggingface.co"
_YES = {"1", "on", "yes", "true"}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class HubSettings:
    """Where models come from and go to.

    Attributes:
        endpoint: URL of the hub or of a mirror, without a slash at its end.
        cache: the cache that Hugging Face's programs share.
        token: of the user's account there; goes to the endpoint's host alone, and only where nobody can read it.
        offline: nothing is asked of the network.
        timeout: seconds without an answer or a byte after which a connection counts as lost.
        backoff: seconds before a lost connection is tried again; doubled each time.
    """

    endpoint: str = DEFAULT_ENDPOINT
    cache: Path = Path("~/.cache/huggingface/hub")
    token: str | None = field(default=None, repr=False)
    offline: bool = False
    timeout: float = 30.0
    backoff: float = 1.0

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, offline: bool | None = None
    ) -> HubSettings:
        """Settings by `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE` and kin.

        Args:
            environment: None is the process's.
            offline: True overrules the environment; None and False leave it to it.

        Raises:
            UsageError: a variable cannot be used.
        """
        env = os.environ if environment is None else environment
        endpoint = (env.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        try:
            parts = urlsplit(endpoint)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise UsageError(f"HF_ENDPOINT: expected a URL such as {DEFAULT_ENDPOINT}, got {endpoint!r}")
        home = _path(env.get("HF_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"))
        cache = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
        return cls(
            endpoint=endpoint,
            cache=_path(cache) if cache else home / "hub",
            token=_token(env, home),
            offline=bool(offline) or any(_is_on(env, name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")),
            timeout=_seconds(env.get("HF_HUB_DOWNLOAD_TIMEOUT"), 30.0),
        )

    def authorization(self, url: str) -> dict[str, str]:
        """The header with the token, for a `url` of the endpoint's host that nobody on the way can read; else empty."""
        ours, theirs = urlsplit(self.endpoint), urlsplit(url)
        private = theirs.scheme == "https" or theirs.hostname in _LOOPBACK
        if self.token is None or not private or (ours.scheme, ours.netloc) != (theirs.scheme, theirs.netloc):
            return {}
        return {"Authorization": f"Bearer {self.token}"}


def _path(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser().absolute()


def _is_on(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "").strip().lower() in _YES


def _token(env: Mapping[str, str], home: Path) -> str | None:
    if _is_on(env, "HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return None
    where = "HF_TOKEN"
    token = env.get("HF_TOKEN") or env.get("HUGGING_FACE_HUB_TOKEN")
    if not token:
        path = _path(env["HF_TOKEN_PATH"]) if env.get("HF_TOKEN_PATH") else home / "token"
        where = str(path)
        try:
            token = path.read_bytes()[:4_096].decode("utf-8", "replace")
        except OSError:
            return None
    token = token.strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError(f"{where}: not a token: expected one word of ASCII such as hf_... (it is not shown here)")
    return token or None


def _seconds(text: str | None, default: float) -> float:
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 86_400:
        raise UsageError(f"HF_HUB_DOWNLOAD_TIMEOUT: expected seconds, got {text!r}")
    return seconds
