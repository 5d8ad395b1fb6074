"""URLs, options, environment and profiles of object stores: what a server on loopback is then asked, and how signed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pseudomount import open_backup
from pseudomount.errors import AccessDeniedError, UsageError
from pseudomount.storage import LocalStore
from pseudomount.storage.remote import Location, connect, is_url, parse_url
from tests.support.web import WebServer, web_server


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any settings, and an environment without any."""
    import os

    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / ".aws").mkdir()
    return tmp_path


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as made:
        made.objects["/b/vm.img"] = b"bytes"
        yield made


def signed_by(server: WebServer, options: dict[str, str] | None = None) -> tuple[str, str, str]:
    """Key id, region and session token of the request that opening makes."""
    server.clear()
    assert connect(parse_url("s3://b/vm.img"), {"max_retries": "0", **(options or {})}).read("vm.img", 0, 9) == b"bytes"
    [request] = server.requests
    credential = request.headers["authorization"].partition("Credential=")[2].split("/")
    return credential[0], credential[2], request.headers.get("x-amz-security-token", "")


# -- URLs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://b/k", Location("s3", "s3://b", "b", "k")),
        ("S3://b/a/%20 ?#ü.img", Location("s3", "s3://b", "b", "a/%20 ?#ü.img")),
        ("s3a://b/k", Location("s3", "s3a://b", "b", "k")),
        ("gs://b/a/k", Location("gs", "gs://b", "b", "a/k")),
        ("az://c/k", Location("az", "az://c", "c", "k")),
        ("azure://c/k", Location("az", "azure://c", "c", "k")),
        ("abfs://c/k", Location("az", "abfs://c", "c", "k")),
        (
            "abfss://c@acc.dfs.core.windows.net/a/k",
            Location("az", "abfss://c@acc", "c", "a/k", account="acc"),
        ),
        ("https://Host/a%20b/%C3%BC.img", Location("http", "https://host", "https://host", "a b/ü.img")),
        (
            "http://u%40x:p%3Aw@h:8080/x?sig=a%2Bb",
            Location("http", "http://h:8080", "http://h:8080", "x", query="sig=a%2Bb", user="u@x:p:w"),
        ),
        ("https://[::1]:9/x", Location("http", "https://[::1]:9", "https://[::1]:9", "x")),
        ("memory://lab/x/y", Location("memory", "memory://lab", "lab", "x/y")),
    ],
)
def test_urls(url: str, expected: Location) -> None:
    assert is_url(url)
    assert parse_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        *(
            "s3://",
            "s3://b",
            "s3://b/",
            "s3:///k",
            "s3://b//k",
            "s3://b/a/../k",
            "s3://b/a\nb",
            "gs://b/.",
            "ftp://h/x",
        ),
        *("https://", "https://h", "https://h/", "https:///x", "https://h:x/y", "https://h:99999/y", "https://h/a%2Fb"),
        *("https://h/%FF", "https://h/a//b", "https://h/%00", "https://[/x", "memory://x"),
    ],
)
def test_urls_that_name_nothing(url: str) -> None:
    with pytest.raises(UsageError):
        parse_url(url)
    with pytest.raises(UsageError):
        open_backup(url)


def test_paths_are_no_urls(tmp_path: Path) -> None:
    for text in ("vm.img", "/vm.img", "c://vm.img", "C:\\vm.img", "./s3:/b", "a:b", "://x", "", Path("s3://b/x")):
        assert not is_url(text)


@pytest.mark.skipif(sys.platform == "win32", reason="\\\\host\\x is a path there")
def test_files_of_other_machines() -> None:
    assert parse_url("file:///a%20b").name == "/a b"
    assert parse_url("file://localhost/a").name == "/a"
    with pytest.raises(UsageError, match="another machine"):
        parse_url("file://host/a")


# -- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["s3://b/x", "gs://b/x", "az://b/x", "https://b/x", "memory://b/x"])
@pytest.mark.parametrize(
    "option",
    [
        *(("bogus", "hush"), ("bucket", "hush"), ("container-name", "hush"), ("", "hush")),
        *(("timeout", "hush"), ("retry_delay", "0"), ("max_retries", "-1")),
        *(("skip_signature", "hush"), ("allow_http", "hush")),
    ],
)
def test_options_that_mean_nothing(url: str, option: tuple[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        connect(parse_url(url), {"account_name": "x", **dict([option])} if url[:2] == "az" else dict([option]))
    assert repr(option[0].replace("-", "_")) in str(caught.value).replace("-", "_")
    assert "hush" not in str(caught.value)


def test_options_are_for_urls(tmp_path: Path) -> None:
    (tmp_path / "x.img").write_bytes(b"x")
    with pytest.raises(UsageError, match="region"):
        open_backup(tmp_path / "x.img", store_options={"region": "x"})
    with pytest.raises(UsageError, match="twice"):
        connect(parse_url("s3://b/x"), {"region": "x", "AWS_REGION": "y"})
    with pytest.raises(UsageError, match="account"):
        connect(parse_url("az://b/x"))


def test_other_words_for_the_same(server: WebServer) -> None:
    for options in (
        {"AWS_ENDPOINT_URL": server.url, "anonymous": "yes"},
        {"endpoint-url": server.url, "No-Sign-Request": "1"},
        {"endpoint": server.url, "skip_signature": "true", "allow_http": "true", "timeout": "2 min"},
    ):
        assert connect(parse_url("s3://b/vm.img"), options).size("vm.img") == 5
    assert not any("authorization" in request.headers for request in server.requests)


def test_http_may_be_forbidden(server: WebServer) -> None:
    from pseudomount.errors import StorageError

    options = {"endpoint": server.url, "anonymous": "yes", "allow_http": "no", "max_retries": "0"}
    with pytest.raises(StorageError, match="allow_http"):
        connect(parse_url("s3://b/vm.img"), options).size("vm.img")
    assert not server.requests


def test_the_account_in_an_azure_url(server: WebServer) -> None:
    location = parse_url("abfss://b@acc.dfs.core.windows.net/vm.img")
    assert connect(location, {"endpoint": server.url, "anonymous": "yes"}).size("vm.img") == 5


# -- environment ---------------------------------------------------------------------------------------------------


def test_keys_in_the_environment(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert signed_by(server) == ("ENV", "eu-west-1", "token")
    assert signed_by(server, {"region": "eu-north-1"}) == ("ENV", "eu-north-1", "token")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    assert signed_by(server) == ("ENV", "eu-west-1", "token")


def test_google_and_azure_in_the_environment(server: WebServer, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    account = home / "account.json"
    account.write_text(
        json.dumps(
            {
                "type": "service_account",
                "gcs_base_url": server.url,
                "disable_oauth": True,
                "client_email": "",
                "private_key": "",
                "private_key_id": "",
            }
        )
    )
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(account))
    assert connect(parse_url("gs://b/vm.img"), {"allow_http": "true"}).size("vm.img") == 5
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acc")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "aHVzaA==")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", server.url)
    server.clear()
    assert connect(parse_url("az://b/vm.img")).size("vm.img") == 5
    assert server.requests[0].headers["authorization"].startswith("SharedKey acc:")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=hush")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    assert connect(parse_url("az://b/vm.img")).size("vm.img") == 5
    assert "sig=hush" in server.requests[-1].path


def test_without_any_credentials(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where a machine of the cloud would be asked for some; here it knows of none.
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/169.254.170.2/none")
    options = {"endpoint": server.url, "max_retries": "0"}
    with pytest.raises(AccessDeniedError, match=r"no credentials were found.*AWS_ACCESS_KEY_ID"):
        connect(parse_url("s3://b/vm.img"), options).size("vm.img")


# -- profiles ------------------------------------------------------------------------------------------------------


def test_profiles(server: WebServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = DEF\naws_secret_access_key = hush%(x)s\n"
        "[work]\naws_access_key_id=WORK\naws_secret_access_key=hush\naws_session_token=token\n",
    )
    (home / ".aws" / "config").write_text(
        f"[default]\nregion = eu-west-2\nendpoint_url = {server.url}\ns3 =\n    max_concurrent_requests = 20\n"
        f"[profile work]\nregion = eu-central-1\nendpoint_url = {server.url}\n[work]\nregion = wrong\n"
        "[profile empty]\noutput = json\n",
    )
    assert signed_by(server) == ("DEF", "eu-west-2", "")
    assert signed_by(server, {"profile": "work"}) == ("WORK", "eu-central-1", "token")
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert signed_by(server) == ("WORK", "eu-central-1", "token")
    assert signed_by(server, {"profile": "default"}) == ("DEF", "eu-west-2", "")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of the environment")
    assert signed_by(server) == ("ENV", "eu-central-1", "of the environment")
    assert signed_by(server, {"profile": "default"}) == ("DEF", "eu-west-2", "")  # and not that token
    assert signed_by(server, {"profile": "work"}) == ("WORK", "eu-central-1", "token")
    monkeypatch.setenv("AWS_REGION", "us-west-1")
    assert signed_by(server)[1] == "us-west-1"
    given = {"access_key_id": "OPT", "secret_access_key": "hush", "session_token": "t"}
    assert signed_by(server, given) == ("OPT", "us-west-1", "t")
    for name, word in (("none", "no AWS profile"), ("empty", "no credentials")):
        with pytest.raises(UsageError, match=f"{word}.*'{name}'|'{name}'.*{word}"):
            connect(parse_url("s3://b/vm.img"), {"profile": name})


def test_files_of_profiles_elsewhere_and_broken(server: WebServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = home / "elsewhere"
    elsewhere.write_text("[x]\naws_access_key_id=ELSE\naws_secret_access_key=hush\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(elsewhere))
    assert signed_by(server, {"profile": "x", "endpoint": server.url}) == ("ELSE", "us-east-1", "")
    elsewhere.write_text("aws_secret_access_key=hush\n")
    with pytest.raises(UsageError, match="cannot be read") as caught:
        connect(parse_url("s3://b/vm.img"), {"profile": "x"})
    assert "hush" not in str(caught.value)


def test_a_profile_that_boto3_must_resolve(
    server: WebServer, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "credentials.py"
    script.write_text(
        'print(\'{"Version": 1, "AccessKeyId": "PROC", "SecretAccessKey": "hush", "SessionToken": "t"}\')\n'
    )
    (home / ".aws" / "config").write_text(
        f"[profile p]\nregion = eu-west-3\ncredential_process = {sys.executable} {script}\n"
    )
    options = {"profile": "p", "endpoint": server.url}
    pytest.importorskip("boto3", reason="needs boto3")
    assert signed_by(server, options) == ("PROC", "eu-west-3", "t")
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs boto3"):
        connect(parse_url("s3://b/vm.img"), options)


def test_a_local_store_is_what_a_path_makes(tmp_path: Path) -> None:
    assert isinstance(LocalStore.for_file(tmp_path / "x")[0], LocalStore)
