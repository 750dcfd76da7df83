"""On a cluster, nothing is lost because a worker sees other files than this process."""

import sys
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import LocalCluster
from helpers import cube

from edxdenoise.blocks import scheduler
from edxdenoise.cluster import check_input, check_total, client
from edxdenoise.errors import ClusterError, FormatError, ParameterError
from edxdenoise.io import check_save, open_dataset, save_dataset
from edxdenoise.io.guard import naming
from edxdenoise.io.store import whole_store

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


@pytest.mark.slow
def test_workers_whose_memory_is_full_are_given_up():
    said = []
    with LocalCluster(
        n_workers=1, processes=False, memory_limit="50MB", dashboard_address=None
    ) as full:
        (worker,) = full.workers.values()
        end = time.monotonic() + 20
        while worker.status.name != "paused" and time.monotonic() < end:
            time.sleep(0.05)
        with pytest.raises(ClusterError, match="since their memory is full .1 of 50 MB or more.;"):
            with scheduler(full.scheduler_address, wait_for_workers=(1, 4), say=said.append):
                da.ones(10, chunks=5).sum().compute()
    assert len(said) == 1 and said[0].startswith("no worker has gone on for 3 s since")
