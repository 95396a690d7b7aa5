"""Stores over HTTP that fail, stall, cut connections or keep failing, and reads by range."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from morphoclip.data import ShardDataset, StreamDataModule
from morphoclip.data.loading.streaming import read_shard
from morphoclip.data.shards.remote import Store, StoreError
from tests.data.shards.test_dataset import in_a_fork


class Server:
    """A folder over HTTP with range requests, and troubles to order: a list of what the next requests of shards meet."""

    def __init__(self, folder: Path) -> None:
        self.troubles: list[str] = []
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = folder / self.path.strip("/")
                if not path.is_file():
                    self.send_error(404)
                    return
                server.asked.append(self.path)
                trouble = server.troubles.pop(0) if "shards" in self.path and server.troubles else ""
                if trouble == "503":
                    self.send_error(503)
                    return
                data = path.read_bytes()
                start, end = 0, len(data)
                if wanted := self.headers.get("Range"):
                    first, last = wanted.removeprefix("bytes=").split("-")
                    start, end = int(first), min(int(last) + 1, len(data))
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(end - start))
                self.send_header("Accept-Ranges", "bytes")
                if wanted:
                    self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
                self.end_headers()
                if self.command == "HEAD":
                    return
                if trouble == "cut":
                    end = start + (end - start) // 2
                    self.close_connection = True
                if trouble == "stall":
                    time.sleep(3)
                self.wfile.write(data[start:end])

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(screen, tmp_path, monkeypatch):
    monkeypatch.setenv("MORPHOCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Store, "pause", quick(Store.pause))
    running = Server(screen)
    yield running
    running.http.shutdown()


def quick(pause):
    def without_waiting(store: Store, attempt: int, name: str, error: Exception) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "sleep", lambda seconds: None)
            pause(store, attempt, name, error)

    return without_waiting


def test_a_store_that_fails_now_and_then_gives_every_crop_once(server, screen, caplog):
    server.troubles = ["503", "503", "cut", "", "cut", "503"]
    module = StreamDataModule(server.url, 44, shuffle_buffer=60, open_shards=1)
    dataset = ShardDataset(screen)
    rows = []
    for batch in module.train_dataloader():
        rows += batch.sample.tolist()
        np.testing.assert_array_equal(batch.images.numpy(), dataset.read(batch.sample.numpy()))
    assert sorted(rows) == list(range(352))
    assert server.troubles == []
    assert "retry in" in caplog.text
    asked = len(server.asked)
    again = StreamDataModule(server.url, 44)
    assert len(again.table)
    assert set(server.asked[asked:]) == {"/manifest.json"}  # the rest of the metadata was kept


def test_a_store_that_stalls_is_asked_again(server, screen):
    server.troubles = ["stall"]
    shard = ShardDataset(screen).manifest["shards"][0]
    start = time.perf_counter()
    samples = list(read_shard(Store(server.url, timeout=0.5), shard["name"], "blosc", shard["samples"]))
    assert [sample.row for sample in samples] == list(range(shard["samples"]))
    assert time.perf_counter() - start < 3
    server.troubles = ["stall"]
    data = (screen / "shards" / shard["name"]).read_bytes()
    assert Store(server.url, timeout=0.5).get_range(f"shards/{shard['name']}", 700, 100) == data[700:800]
    assert time.perf_counter() - start < 6


def test_a_store_that_keeps_failing_is_named(server):
    server.troubles = ["503"] * 20
    module = StreamDataModule(server.url, 44, retries=2)
    with pytest.raises(StoreError, match=r"shards/0000\d\d.tar failed 3 times.*503.*check the address"):
        list(module.train_dataloader())
    with pytest.raises(FileNotFoundError):
        ShardDataset(f"{server.url}/elsewhere")


def test_an_address_nobody_can_read_is_named_at_once(monkeypatch):
    monkeypatch.setattr(Store, "pause", lambda *_: pytest.fail("tried again"))
    with pytest.raises(StoreError, match=r"ftq://there.*not known.*s3://"):
        ShardDataset("ftq://there/dataset")


def test_single_crops_come_by_range_requests(server, screen):
    server.troubles = ["503"]
    there, here = ShardDataset(server.url), ShardDataset(screen)
    np.testing.assert_array_equal(there.read([3, 300, 17]), here.read([3, 300, 17]))
    np.testing.assert_allclose(there.channel_statistics()[0], here.channel_statistics()[0])


def test_a_forked_process_reads_from_a_store_with_connections_of_its_own(server, screen):
    there, here = ShardDataset(server.url), ShardDataset(screen)
    there.read([0])
    assert in_a_fork(lambda: np.array_equal(there.read([300]), here.read([300])))
