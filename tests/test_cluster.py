"""On a cluster, nothing is lost because a worker sees other files than this process."""

import sys
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import psutil
import pytest
from distributed import LocalCluster
from helpers import cube

import edxdenoise.pipeline  # noqa: F401  (it takes memory, which is measured here)
from edxdenoise.blocks import chunk, scheduler
from edxdenoise.cluster import check_input, check_total, client
from edxdenoise.errors import ClusterError, FormatError, ParameterError
from edxdenoise.io import check_save, open_dataset, save_dataset
from edxdenoise.io.guard import naming
from edxdenoise.io.store import whole_store
from edxdenoise.resources import BLOCK_COPIES

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from cluster_faults import can_hide, cluster, kill  # noqa: E402


@pytest.fixture
def counts(tmp_path):
    ds = cube(np.random.default_rng(0).poisson(2, (16, 6, 50)).astype(np.uint8)).chunk({"y": 1})
    (tmp_path / "data").mkdir()
    save_dataset(ds, tmp_path / "data" / "map.zarr")
    save_dataset(ds, tmp_path / "data" / "map.nc")
    return ds


@pytest.mark.slow
@pytest.mark.skipif(not can_hide(), reason="this user may not make mount namespaces")
def test_blind_worker_is_named(tmp_path, counts):
    data = tmp_path / "data"
    with cluster(tmp_path) as started:
        started.add()
        with scheduler(str(started.file), wait_for_workers=(1, 30)):
            paths = [data / "map.zarr", data / "map.nc"]
            early = [open_dataset(path) for path in paths]
            check_save(data / "out.zarr")
            save_dataset(early[0], data / "copy.zarr", total=float(counts["counts"].sum()))
            started.add(hidden=data)
            started.wait(2)
            for path in paths:
                with pytest.raises(ClusterError, match=f"worker tcp.* cannot read .*{path.name}"):
                    open_dataset(path)
            with pytest.raises(ClusterError, match="worker tcp.* does not write into the folder"):
                check_save(data / "out.zarr")
            # Opened before the blind worker came, which then has to take a share of the blocks.
            kill(started.workers[0])
            with pytest.raises(ClusterError, match="worker tcp.* does not write into the folder"):
                check_save(data / "out.zarr")
            for ds in early:
                with pytest.raises((ClusterError, FormatError), match="cannot read|does not see"):
                    ds["counts"].sum().compute()
            with pytest.raises(ClusterError, match="workers wrote chunks where"):
                save_dataset(counts, data / "lost.zarr")
        assert client() is None
    assert sorted(path.name for path in data.iterdir()) == ["copy.zarr", "map.nc", "map.zarr"]
    assert (open_dataset(data / "copy.zarr")["counts"] == counts["counts"]).all()


@pytest.mark.slow
def test_without_workers_and_without_scheduler(tmp_path):
    said = []
    with cluster(tmp_path) as started:
        with pytest.raises(ClusterError, match="has 0 of 2 workers after 4 s; start some with"):
            with scheduler(str(started.file), wait_for_workers=(2, 4), say=said.append):
                pass
    assert said == ["waiting for workers, 0 of 2 so far, 3 s"]
    with pytest.raises(ParameterError, match="does not exist; start the scheduler first"):
        with scheduler(str(tmp_path / "absent.json")):
            pass


def test_without_a_cluster_nothing_is_asked(tmp_path, counts):
    assert client() is None
    assert check_input(counts, tmp_path / "absent.zarr") is counts


def test_totals_that_differ():
    check_total("weights", 100.0, 100.0)
    check_total("components", 100.00001, 100.0, tolerance=1e-6)
    with pytest.raises(ClusterError, match="'weights' found 99 counts where the input holds 100"):
        check_total("weights", 99, 100)


def test_missing_chunk_is_an_error_whenever_it_goes(tmp_path, counts):
    ds = open_dataset(tmp_path / "data" / "map.zarr")
    (tmp_path / "data" / "map.zarr" / "counts" / "c" / "0" / "0" / "0").unlink()
    with dask.config.set(scheduler="threads"), pytest.raises(OSError, match="chunk 'counts/c/0"):
        ds["counts"].sum().compute()
    with pytest.raises(OSError, match="chunks of 'counts' are missing"):
        whole_store(tmp_path / "data" / "map.zarr")


def test_failures_of_a_cluster_are_not_blamed_on_the_file():
    with pytest.raises(ClusterError, match="^the scheduler"), naming([Path("map.zarr")]):
        raise ClusterError("the scheduler is gone; start it")
    with pytest.raises(FormatError, match="^map.zarr: no energy"), naming([Path("map.zarr")]):
        raise FormatError("no energy")


def local_cluster(room: float) -> LocalCluster:
    """One worker in this process, which can use `room` bytes more than are in use."""
    limit = (psutil.Process().memory_info().rss + room) / 0.8
    workers = {"n_workers": 1, "threads_per_worker": 1, "processes": False}
    return LocalCluster(**workers, memory_limit=limit, dashboard_address=":0")


def test_workers_without_room_are_refused_before_any_work():
    with local_cluster(30e6) as small:
        with pytest.raises(
            ClusterError, match="worker .* in use before any work; with 1 threads it"
        ):
            with scheduler(small.scheduler_address):
                pass


def test_blocks_keep_within_the_memory_of_workers():
    ds = cube(np.zeros((40, 100, 4096), np.uint8))
    usual = max(chunk(ds, workers=1)["counts"].data.chunks[0])
    with local_cluster(200e6) as small, scheduler(small.scheduler_address):
        rows = max(chunk(ds, workers=1)["counts"].data.chunks[0])
    assert rows < usual
    assert 0.7 < rows * 100 * 4096 * 4 * BLOCK_COPIES / (200e6 / 2) < 1.1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError("8 GB"), "a worker of .* ran out of memory .8 GB.; give workers more"),
        (FileNotFoundError("a.zarr"), "a worker of .* does not see the files .* .a.zarr.; put"),
        (OSError("Timed out trying to connect to 'tcp://a:1' after 10 s"), "no longer answers"),
        (ModuleNotFoundError("h5py"), "a worker of .* lacks a package .h5py.; install"),
        (None, "the Dask scheduler at .* no longer answers; start it and its workers again"),
    ],
)
def test_failures_name_scheduler_or_worker(monkeypatch, error, words):
    monkeypatch.setattr("edxdenoise.cluster._ANSWER", "1s")

    def fail(block):
        raise error

    with local_cluster(900e6) as local, scheduler(local.scheduler_address):
        if error is None:
            local.close()
        work = da.ones(4, chunks=2).map_blocks(fail, meta=np.empty(0))
        with pytest.raises(ClusterError, match=words) as caught:
            work.compute()
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_workers_whose_memory_is_full_are_given_up():
    """Also where that happens between two computations; nothing is computed here instead."""
    said = []
    with local_cluster(900e6) as full:
        with scheduler(full.scheduler_address, wait_for_workers=(1, 3), say=said.append):
            held = da.ones(10, chunks=5).persist()
            connected = client()
            ballast = np.ones(150_000_000)
            end = time.monotonic() + 20
            while connected.status == "running" and time.monotonic() < end:
                time.sleep(0.05)
            for work in (held.sum().compute, held.persist, da.ones(3).sum().compute):
                with pytest.raises(ClusterError, match="memory is full .1 of .* or more.; give"):
                    work()
            del ballast
    assert all(text.startswith("no worker has gone on for") for text in said)
