"""Requests whose answers differ from provider to provider; stores in memory and in a folder stand for them."""

from pathlib import Path

import pytest
from obstore.store import LocalStore

from bucket_support import NOT_THE_CLOUDS
from motionbox.storage.client import Client, _may_be_plain, client_of


def test_what_is_not_there_may_be_removed_where_a_provider_minds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder, as Azure and Google, refuses at the first name that is missing; the others go all the same."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    client = Client("s3://bucket")
    client.store = LocalStore(tmp_path)
    for name in ("one", "two"):
        client.put(name, b"x")
    with pytest.raises(FileNotFoundError):
        client.store.delete(["nothing"])
    client.delete(["nothing", "one", "no/thing", "two"])
    assert [entry.key for entry in client.walk("")] == []


@pytest.mark.parametrize(
    ("variables", "plain"),
    [
        ({}, False),
        ({"AWS_ENDPOINT_URL": "https://host"}, False),
        ({"AWS_ENDPOINT_URL": "http://host"}, True),
        ({"AWS_ENDPOINT_URL": "http://host", "AWS_ENDPOINT_URL_S3": "https://host"}, False),
        ({"AZURE_STORAGE_USE_EMULATOR": "true"}, True),
        ({"GOOGLE_ALLOW_HTTP": "False"}, False),
    ],
)
def test_plain_http_is_used_only_where_it_is_asked_for(variables: dict[str, str], plain: bool) -> None:
    assert _may_be_plain(variables) == plain


def test_a_bucket_is_looked_for_where_the_environment_says_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook that goes on with another endpoint or other keys gets another connection, and the old one again."""
    for name, value in {**NOT_THE_CLOUDS, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}.items():
        monkeypatch.setenv(name, value)
    one = client_of("s3://stores")
    assert client_of("s3://stores") is one
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:2")
    assert client_of("s3://stores") is not one
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert client_of("s3://stores") is one
