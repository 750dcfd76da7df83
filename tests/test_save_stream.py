"""Large cubes are written in bounded memory, on threads and on a cluster."""

import json
import subprocess
import sys

import dask.array as da
import numpy as np
import pytest

from edxdenoise.blocks import scheduler
from edxdenoise.cube import make_cube
from edxdenoise.errors import FormatError
from edxdenoise.io import open_dataset, save_dataset
from edxdenoise.schema import COUNTS_DENOISED

pytestmark = pytest.mark.slow

# The size of the blocks is what edxdenoise.blocks cuts for such a map.
_STREAM = """
import json, resource, sys, time
import dask.array as da, numpy as np, xarray as xr
from edxdenoise.cube import make_cube
from edxdenoise.blocks import scheduler
from edxdenoise.io import save_dataset
from edxdenoise.schema import COUNTS_DENOISED

path, rows = sys.argv[1], int(sys.argv[2])
def block(block_info=None):
    (y0, y1), (x0, x1), (e0, e1) = block_info[None]["array-location"]
    rng = np.random.default_rng(y0 * 1024 + x0)
    return rng.integers(0, 3, (y1 - y0, x1 - x0, e1 - e0), dtype=np.uint8)
counts = da.map_blocks(block, chunks=((4,) * (rows // 4), (512,), (2048,)), dtype=np.uint8,
                       meta=np.empty((0, 0, 0), np.uint8))
ds = make_cube(counts, energy=np.arange(2048.0))
ds["counts_denoised"] = COUNTS_DENOISED.array(counts.astype(np.float32) * np.float32(0.7))
def peak():
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines["VmHWM"].split()[0]) * 1024
before, start = peak(), time.perf_counter()
with scheduler("threads", workers=2):
    save_dataset(ds, path)
print(json.dumps({"extra": peak() - before, "seconds": time.perf_counter() - start,
                  "bytes": ds.nbytes}))
"""


def stream(path, rows):
    done = subprocess.run(
        [sys.executable, "-c", _STREAM, str(path), str(rows)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("suffix", [".zarr", ".nc", ".hspy"])
def test_memory_is_bounded(tmp_path, suffix):
    result = stream(tmp_path / f"out{suffix}", rows=96)
    assert result["bytes"] > 500e6
    assert result["extra"] < 225e6, f"{result['extra'] / 1e6:.0f} MB beyond the imports"


@pytest.fixture(scope="module")
def processes():
    with scheduler("processes", workers=2, memory_limit=2 * 10**9):
        yield


@pytest.mark.parametrize("suffix", [".zarr", ".nc", ".hspy"])
def test_local_cluster(tmp_path, suffix, processes):
    counts = da.arange(32 * 32 * 512, chunks=-1, dtype=np.uint32).reshape(32, 32, 512)
    ds = make_cube(counts.rechunk((8, 32, 512)), energy=np.arange(512.0))
    ds["counts_denoised"] = COUNTS_DENOISED.array(ds["counts"].data.astype(np.float32) * 2)
    path = tmp_path / f"out{suffix}"
    save_dataset(ds, path)
    with pytest.raises(FormatError, match="exists"):
        save_dataset(ds, path)
    assert list(tmp_path.iterdir()) == [path]
    if suffix == ".hspy":
        hs = pytest.importorskip("hyperspy.api")
        np.testing.assert_array_equal(hs.load(path).data, ds["counts_denoised"])
    else:
        back = open_dataset(path)
        assert back["counts"].dtype == np.uint32
        np.testing.assert_array_equal(back["counts"], ds["counts"])
        np.testing.assert_array_equal(back["counts_denoised"], ds["counts_denoised"])
