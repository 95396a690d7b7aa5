"""A dataset in an S3 bucket: moto's server on loopback, with troubles to order."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from morphoclip.data import ShardDataset, StreamDataModule
from morphoclip.data.loading.streaming import read_shard
from morphoclip.data.shards.remote import Store, StoreError
from tests.data.loading.test_streaming import quick

ROOT = "s3://bucket/screen"
SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Bucket:
    """The server's application; `troubles` are what the next requests for shards meet: 503, or seconds to wait."""

    def __init__(self, folder: Path) -> None:
        import boto3
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.troubles: list[int | float] = []
        self.requests: list[str] = []
        self.answer = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        client = boto3.client("s3", endpoint_url=self.url, aws_access_key_id="me", aws_secret_access_key="secret")
        client.create_bucket(Bucket="bucket")
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            client.upload_file(str(path), "bucket", f"screen/{path.relative_to(folder)}")

    def asked(self, key: str) -> int:
        """How many requests named a key; readers that another test left behind ask for others."""
        return sum(key in request for request in self.requests)

    def __call__(self, environ, start_response):
        from werkzeug.wrappers import Response

        self.requests.append(f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}")
        trouble = self.troubles.pop(0) if "/shards/" in environ["PATH_INFO"] and self.troubles else 0
        if trouble == 503:
            return Response(SLOW_DOWN, 503, mimetype="application/xml")(environ, start_response)
        if trouble:
            time.sleep(trouble)
        return self.answer(environ, start_response)


@pytest.fixture(scope="module")
def running(screen):
    for module in ("s3fs", "moto.server", "flask_cors"):
        pytest.importorskip(module)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, "/dev/null")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = Bucket(screen)
        yield bucket
        bucket.server.shutdown()


@pytest.fixture
def bucket(running, tmp_path, monkeypatch):
    settings = {"ENDPOINT_URL": running.url, "ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "secret", "MAX_ATTEMPTS": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("MORPHOCLIP_CACHE", str(tmp_path))
    monkeypatch.setattr(Store, "pause", quick(Store.pause))
    running.troubles.clear()
    return running


def test_a_bucket_that_says_slow_down_gives_every_crop_once(bucket, screen, caplog):
    bucket.troubles = [503, 0, 503, 503]
    here, rows = ShardDataset(screen), []
    for batch in StreamDataModule(ROOT, 44, num_workers=1, shuffle_buffer=60).train_dataloader():
        rows += batch.sample.tolist()
        np.testing.assert_array_equal(batch.images.numpy(), here.read(batch.sample.numpy()))
    assert sorted(rows) == list(range(352))
    assert bucket.troubles == []
    assert "SlowDown" in caplog.text
    assert "retry in 0.5 s" in caplog.text


def test_single_crops_come_from_a_bucket_after_a_new_try(bucket, screen):
    there, here = ShardDataset(ROOT), ShardDataset(screen)
    bucket.troubles = [503, 503]
    bucket.requests.clear()
    np.testing.assert_array_equal(there.read([3, 300, 17]), here.read([3, 300, 17]))
    assert bucket.asked("/shards/") == 5


def test_a_bucket_that_answers_too_slowly_is_asked_again(bucket, screen, caplog):
    shard = ShardDataset(screen).manifest["shards"][0]
    store = Store(ROOT, timeout=0.4)
    store.get("manifest.json")  # a client takes its time to be made
    bucket.troubles = [1.5]
    start = time.perf_counter()
    samples = list(read_shard(store, shard["name"], "blosc", shard["samples"]))
    assert [sample.row for sample in samples] == list(range(shard["samples"]))
    assert time.perf_counter() - start < 1.5
    assert "retry in" in caplog.text


def test_a_bucket_that_keeps_failing_is_named_after_growing_pauses(bucket, caplog):
    bucket.troubles = [503] * 20
    bucket.requests.clear()
    with pytest.raises(StoreError, match=r"s3://bucket/screen/shards/000000.tar failed 3 times.*SlowDown.*retries"):
        Store(ROOT, retries=2).get_range("shards/000000.tar", 0, 10)
    assert bucket.asked("/shards/000000.tar") < 6  # s3fs does not try by itself in between, five times for each of ours
    assert [record.getMessage()[-5:] for record in caplog.records if record.levelname == "WARNING"] == [
        "0.5 s",
        "1.0 s",
    ]
    with pytest.raises(StoreError, match=r"shards/0000\d\d.tar failed 3 times.*503"):
        list(StreamDataModule(ROOT, 44, retries=2).train_dataloader())


def test_what_is_not_in_the_bucket_is_reported_at_once(bucket):
    bucket.requests.clear()
    with pytest.raises(FileNotFoundError):
        Store(ROOT).get("shards/000099.tar")
    assert 1 <= bucket.asked("shards/000099.tar") <= 2
    with pytest.raises(FileNotFoundError):
        ShardDataset("s3://bucket/elsewhere")
