"""A store in Azure's Blob Storage, as Azurite speaks it: `npm install -g azurite`; without it this is skipped."""

import base64
import email.utils
import hashlib
import hmac
import http.client
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from test_bucket import extract, run_commands

pytest.importorskip("obstore")

# The account that every Azurite has.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_START_SECONDS = 120.0


@pytest.fixture
def container(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Start a server with one container; yields the variables by which it is found."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not installed: npm install -g azurite")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--blobPort", str(port)]
    with subprocess.Popen([program, *options], cwd=tmp_path) as server:
        try:
            make_container(port, "trials")
            yield {
                "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
                "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{_ACCOUNT}",
                "AZURE_ALLOW_HTTP": "true",
            }
        finally:
            server.kill()


def make_container(port: int, name: str) -> None:
    """Create a container, which obstore does not do."""
    date = email.utils.formatdate(usegmt=True)
    told = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
    resource = f"/{_ACCOUNT}/{_ACCOUNT}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + "".join(f"{key}:{value}\n" for key, value in told.items()) + resource
    signature = base64.b64encode(hmac.new(base64.b64decode(_KEY), text.encode(), hashlib.sha256).digest()).decode()
    headers = {**told, "Authorization": f"SharedKey {_ACCOUNT}:{signature}", "Content-Length": "0"}
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("PUT", f"/{_ACCOUNT}/{name}?restype=container", headers=headers)
            assert connection.getresponse().status == 201
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "azurite-blob did not start"
        else:
            return


@pytest.mark.slow
def test_a_store_in_azure_is_that_of_a_folder(container: dict[str, str], tmp_path: Path) -> None:
    data, local = tmp_path / "data", str(tmp_path / "store")
    boxes, same = tmp_path / "boxes.csv", tmp_path / "same.csv"
    store = "az://trials/stores/one"
    results = run_commands(
        {**container, "MOTIONBOX_CACHE_DIR": str(tmp_path / "cache"), "MOTIONBOX_SCRATCH": str(tmp_path / "scratch")},
        ["synth", "-o", str(data), "--num-clips", "1", "--seed", "5"],
        extract(data, store),
        extract(data, store),
        ["verify", store],
        ["import-boxes", store, "--like", "motion", "--name", "random"],
        ["gc", store, "--delete", "--guidance", "random"],
        ["export", store, "--format", "csv", "-o", str(boxes)],
        extract(data, local),
        ["export", local, "--format", "csv", "-o", str(same)],
    )
    assert [code for code, _, _ in results] == [0] * len(results), [entry for entry in results if entry[0]]
    assert boxes.read_bytes() == same.read_bytes()
    assert not any(_KEY in out + err for _, out, err in results)
