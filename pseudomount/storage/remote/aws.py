"""Profiles of `~/.aws`, as the AWS command line knows them.

Keys, region and endpoint that stand in the files are read here. A profile that gets its credentials otherwise (single
sign-on, a role, a process) is left to boto3, where it is installed.

Files and their sections: AWS SDKs and Tools Reference Guide, "Shared config and credentials files".
"""

from __future__ import annotations

import importlib.util
import os
from configparser import Error, RawConfigParser
from pathlib import Path
from typing import Any

from pseudomount.errors import UsageError

__all__ = ["complete"]

#: Where credentials come from without a profile.
_IN_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_ELSEWHERE = (
    "role_arn",
    "sso_session",
    "sso_start_url",
    "credential_process",
    "web_identity_token_file",
    "login_session",
)
_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}


def complete(settings: dict[str, str]) -> dict[str, Any]:
    """Adds what environment and profile say to the options of an S3 store, where they do not say it themselves.

    A profile named by an option goes before keys in the environment, one named by AWS_PROFILE after them.

    Returns:
        further arguments of obstore's `S3Store`.

    Raises:
        UsageError: there is no such profile, or it needs boto3.
    """
    named = settings.pop("profile", None)
    if "endpoint" not in settings and os.environ.get("AWS_ENDPOINT_URL_S3"):
        settings["endpoint"] = os.environ["AWS_ENDPOINT_URL_S3"]
    wanted = named or os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    profile = _profile(wanted or "default")
    if profile is None:
        if wanted:
            raise UsageError(f"no AWS profile is called {wanted!r} in {_path('config')} or {_path('credentials')}")
        return {}
    if "region" in profile and not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        settings.setdefault("region", profile["region"])
    if "endpoint_url" in profile and not any(os.environ.get(n) for n in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT")):
        settings.setdefault("endpoint", profile["endpoint_url"])
    given = "access_key_id" in settings or settings.get("skip_signature") == "true"
    if given or (named is None and any(os.environ.get(name) for name in _IN_ENVIRONMENT)):
        return {}
    if "aws_access_key_id" in profile and "role_arn" not in profile:
        for key, ours in _KEYS.items():
            if key in profile:
                settings[ours] = profile[key]
        if "aws_session_token" not in profile:  # one in the environment belongs to other keys
            return _static(settings)
        return {}
    if any(key in profile for key in _ELSEWHERE):
        return {"credential_provider": _boto3(wanted or "default")}
    if wanted and not any(key in profile for key in ("region", "endpoint_url")):
        raise UsageError(f"AWS profile {wanted!r} has no credentials")
    return {}


def _static(settings: dict[str, str]) -> dict[str, Any]:
    key, secret = settings.pop("access_key_id"), settings.pop("secret_access_key", "")

    def credentials() -> dict[str, object]:
        return {"access_key_id": key, "secret_access_key": secret, "token": None, "expires_at": None}

    return {"credential_provider": credentials}


def _path(which: str) -> Path:
    variable = {"config": "AWS_CONFIG_FILE", "credentials": "AWS_SHARED_CREDENTIALS_FILE"}[which]
    text = os.environ.get(variable) or f"~/.aws/{which}"
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no home
        return Path(text)


def _profile(name: str) -> dict[str, str] | None:
    """What both files say of a profile; the file of credentials goes before."""
    found: dict[str, str] | None = None
    sections = {"config": (f"profile {name}", name) if name == "default" else (f"profile {name}",)}
    for which in ("config", "credentials"):
        parser = RawConfigParser(strict=False, default_section="", interpolation=None)
        path = _path(which)
        try:
            with path.open(encoding="utf-8-sig") as file:
                parser.read_file(file)
        except FileNotFoundError:
            continue
        except (OSError, Error, UnicodeError) as error:
            raise UsageError(f"{path} cannot be read: {type(error).__name__}") from None
        for section in sections.get(which, (name,)):
            if parser.has_section(section):
                found = {**(found or {}), **dict(parser.items(section))}
    return found


def _boto3(profile: str) -> Any:
    if importlib.util.find_spec("boto3") is None:
        raise UsageError(f"AWS profile {profile!r} gets its credentials in a way that needs boto3: pip install boto3")
    import boto3
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider(boto3.Session(profile_name=profile))
    except (BotoCoreError, ValueError) as error:
        raise UsageError(f"AWS profile {profile!r} gives no credentials: {type(error).__name__}") from None
