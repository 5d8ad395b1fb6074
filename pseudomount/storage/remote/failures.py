"""What went wrong with a request, as one of our errors.

The texts of obstore's errors hold addresses with their signatures and what the server answered, so nothing of them is
repeated but the status and the server's own code for it ("NoSuchKey").
"""

from __future__ import annotations

import re

from pseudomount.errors import (
    AccessDeniedError,
    ObjectChangedError,
    ObjectNotFoundError,
    PseudomountError,
    StorageError,
    TransientStorageError,
    UnsupportedError,
)

__all__ = ["is_unsatisfiable", "translated"]

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_METADATA = ("169.254.169.254", "metadata.google.internal", "169.254.170.2", "identity/oauth2/token")
_ADVICE = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a public bucket skip_signature=true",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS; for a public bucket skip_signature=true",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN; "
    "for a public container skip_signature=true",
}
#: What S3 answers with status 400 although it is about who asks.
_DENIED = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationQueryParametersError"}
_RETRYABLE = {408, 425, 429}


def translated(error: BaseException, shown: str, name: str, kind: str, *, known: bool = False) -> PseudomountError:
    """An error of obstore as ours.

    Args:
        error: what obstore raised.
        shown: what was asked for, fit for a message.
        name: the object's name.
        kind: of the store: "s3", "gs" …
        known: whether the object was read before.
    """
    if isinstance(error, PseudomountError):
        return error
    text = str(error)
    status = _STATUS.search(text)
    number = int(status[1]) if status else 0
    found = _CODE.search(text)
    code = found[1] if found else ""
    told = " ".join(part for part in (str(number) if number else "", code) if part)
    because = f" ({told})" if told else ""
    label = type(error).__name__
    if isinstance(error, FileNotFoundError):
        if code in ("NoSuchBucket", "ContainerNotFound"):
            return ObjectNotFoundError(f"{shown}: no such bucket", filename=name)
        return ObjectNotFoundError(f"{shown} {'is no longer there' if known else 'does not exist'}", filename=name)
    if label == "PreconditionError" or (known and number in (412, 416)):
        return ObjectChangedError(f"{shown} has changed since it was first read", filename=name)
    if any(host in text for host in _METADATA) or "MissingAccount" in text:
        return AccessDeniedError(f"{shown}: no credentials were found; {_ADVICE.get(kind, '')}", filename=name)
    if label in ("PermissionDeniedError", "UnauthenticatedError") or number in (401, 403) or code in _DENIED:
        advice = _ADVICE.get(kind, "the address may need a signature, or user:password@ before the host")
        message = f"{shown}: access denied{because}; check the credentials and their rights: {advice}"
        return AccessDeniedError(message, filename=name)
    if _without_ranges(error):
        return UnsupportedError(f"{shown}: the server does not give parts of files; download the file and open that")
    if label == "InvalidPathError" or isinstance(error, ValueError):
        return StorageError(f"{name!r} is no name in an object store", filename=name)
    return _generic(text, shown, name, kind, number, because)


def _generic(text: str, shown: str, name: str, kind: str, number: int, because: str) -> PseudomountError:
    if "BareRedirect" in text or "AuthorizationHeaderMalformed" in text:
        option = "the store option region (or AWS_REGION)" if kind == "s3" else "the endpoint"
        return StorageError(f"{shown} lies elsewhere: set {option} to where the bucket is{because}", filename=name)
    if "BadScheme" in text:
        return StorageError(f"{shown}: http:// without encryption is refused; set allow_http=true", filename=name)
    if "ertificate" in text:
        return StorageError(f"{shown}: the server's certificate is not trusted", filename=name)
    if any(word in text for word in ("ParseContentRange", "UnexpectedRange", "NoContentRange", "ContentRange")):
        return StorageError(f"{shown}: the server answered with another range than it was asked for", filename=name)
    if "MissingEtag" in text or "MissingLastModified" in text or "MissingContentLength" in text:
        return StorageError(f"{shown}: the server's answer says not enough of the object", filename=name)
    if number >= 500 or number in _RETRYABLE:
        return TransientStorageError(f"{shown}: the server failed{because} and did so when asked again", filename=name)
    if number:
        return StorageError(f"{shown}: the server refused{because}", filename=name)
    if "kind: Timeout" in text or "TimedOut" in text or "timed out" in text:
        return TransientStorageError(f"{shown}: the server did not answer in time", filename=name)
    if "kind: Connect" in text:
        return TransientStorageError(f"{shown}: the server cannot be reached", filename=name)
    if "HttpError" in text or "HTTP error" in text or "kind: Interrupted" in text:
        return TransientStorageError(f"{shown}: the connection broke", filename=name)
    return StorageError(f"{shown}: reading failed; the store gave no reason that may be shown", filename=name)


def is_unsatisfiable(error: BaseException) -> bool:
    """Whether it says that the range lies outside the object, or that there are no ranges: an empty object, maybe."""
    text = str(error)
    return _without_ranges(error) or any(
        word in text for word in ("status code: 416", "StartTooLarge", "Invalid range")
    )


def _without_ranges(error: BaseException) -> bool:
    return type(error).__name__ == "NotSupportedError" or "NotPartial" in str(error)
