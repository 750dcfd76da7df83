"""The review: what it shows is what the library computes, and nothing that was chosen is lost."""

import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from edxdenoise.cli import main
from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.cube import make_cube, reconstruct
from edxdenoise.errors import FormatError, ParameterError, recorded
from edxdenoise.io import open_dataset, rounded_for_storage, save_dataset
from edxdenoise.pipeline import quantify, rebuilt
from edxdenoise.preprocess import weight
from edxdenoise.recipe import Recipe
from edxdenoise.report import write_report
from edxdenoise.review import Review
from edxdenoise.review.choice import Choice, applied
from edxdenoise.review.server import ReviewServer
from edxdenoise.review.views import Box, Lasso, Views
from edxdenoise.training.labels import add_labels, read_labels
from edxdenoise.xray import channel_response, line_energy

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from faults import unprivileged  # noqa: E402

ENERGY = 0.05 * (np.arange(120) + 0.5) + 2
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> \"&'"
# As files say how they were made: components as they are, weighted by their signal, quantified.
PLAIN = "[denoise]\nshrink = false\nsubspace = 'pixel'\n"
WEIGHTED = "[denoise]\nshrink = false\n"
QUANTIFIED = PLAIN + "[lines.Fe_Ka]\nk_factor = 1.0\n[lines.Ca_Ka]\nk_factor = 0.9\n"


def counts(rows=12, columns=16, seed=1):
    """Ca at the left, Fe at the right."""
    lines = channel_response(np.array([line_energy("Ca_Ka"), line_energy("Fe_Ka")]), ENERGY)
    left = np.linspace(1, 0, columns)[np.newaxis, :, np.newaxis] * np.ones((rows, 1, 1))
    expected = 0.2 + 60 * left * lines[0] + 50 * (1 - left) * lines[1]
    found = np.random.default_rng(seed).poisson(4 * expected)
    attrs = {"beam_energy": 200.0, "detector_resolution": 130.0, "title": HOSTILE}
    return make_cube(found, energy=ENERGY, spatial_units="nm", attrs=attrs)


def denoised(recipe=PLAIN, **shape):
    made = Recipe.from_toml(recipe)
    ds = select(pca(weight(counts(**shape)), components=12), selector="spatial")
    ds = rebuilt(select(ds, keep="1-2"), made.denoise).assign_attrs(recipe=recipe)
    ds.component_signal_probability[:] = np.linspace(1, 0, 12)
    ds = ds.assign_attrs(edxdenoise_version="0", source=f"{HOSTILE}.bcf sha256:1")
    return quantified(ds) if made.quantifies else ds


def quantified(ds):
    """Without the notes, such as that some net counts are negative."""
    with recorded(show=False):
        return quantify(ds, Recipe.from_toml(QUANTIFIED).lines)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One denoised file of each kind."""
    folder = tmp_path_factory.mktemp("made")
    for name, recipe in (("plain", PLAIN), ("quantified", QUANTIFIED)):
        ds = rounded_for_storage(denoised(recipe).drop_dims("line_other", errors="ignore"))
        save_dataset(ds, folder / f"{name}.nc")
    return folder


def copied(made, tmp_path, name="plain", suffix=".zarr"):
    path = tmp_path / f"map{suffix}"
    save_dataset(open_dataset(made / f"{name}.nc"), path)
    return path


@pytest.fixture
def path(made, tmp_path):
    return copied(made, tmp_path)


# Views


def rebuilt_by_library(ds, keep):
    """The cube that the library rebuilds from some components."""
    flags = np.isin(ds.component.values, keep).astype(np.int8)
    return reconstruct(ds.assign(component_keep=ds.component_keep.copy(data=flags)))


@pytest.mark.parametrize("keep", [(1, 2), (1, 2, 3, 9), (2,)])
def test_maps_and_spectra_of_a_choice_are_those_of_the_library(keep):
    ds = denoised()
    views, box = Views.of(ds), Box(2, 9, 3, 15)
    cube = rebuilt_by_library(ds, keep).counts_denoised.values
    for name, row in zip(views.names, views.rows):
        np.testing.assert_allclose(views.rebuilt_map(name, keep), cube @ row, rtol=1e-4, atol=1e-3)
    inside = cube[2:9, 3:15].sum(axis=(0, 1), dtype=float)
    np.testing.assert_allclose(views.rebuilt_spectrum(box, keep), inside, rtol=1e-4, atol=1e-3)
    raw = ds.counts.values
    np.testing.assert_array_equal(views.raw_spectrum(box), raw[2:9, 3:15].sum(axis=(0, 1)))
    np.testing.assert_array_equal(views.raw_spectrum(views.snapped(None)), raw.sum(axis=(0, 1)))
    np.testing.assert_allclose(views.raw_maps()[0], raw.sum(axis=2))


def test_smoothed_components_are_shown_as_smoothed():
    ds = denoised()
    smooth = ds.component_map.where(ds.component <= 2) * 0.9
    ds = reconstruct(ds.assign(component_map_shrunk=smooth.astype("f4")))
    views = Views.of(ds)
    expected = ds.counts_denoised.sum("energy").values
    np.testing.assert_allclose(views.rebuilt_map("total", (1, 2)), expected, rtol=1e-4)
    # Of the third there is no smoothed map.
    added = views.rebuilt_map("Fe_Ka", (1, 2, 3)) - views.rebuilt_map("Fe_Ka", (1, 2))
    plain = Views.of(ds.drop_vars("component_map_shrunk"))
    expected = plain.rebuilt_map("Fe_Ka", (1, 3)) - plain.rebuilt_map("Fe_Ka", (1,))
    np.testing.assert_allclose(added, expected, atol=1e-4)


def test_large_maps_are_shown_by_cells(monkeypatch):
    monkeypatch.setattr("edxdenoise.review.views._MOST_CELLS", 30)
    ds = denoised(rows=13, columns=11)
    views, keep = Views.of(ds), (1, 3)
    assert views.side == 3 and views.pixels.tolist()[-1] == [3, 3, 3, 2]
    box = views.snapped(Box(4, 5, 7, 11))
    assert box == Box(3, 6, 6, 11)
    cube = rebuilt_by_library(ds, keep).counts_denoised.values
    inside = cube[3:6, 6:11]
    np.testing.assert_allclose(
        views.rebuilt_spectrum(box, keep), inside.sum(axis=(0, 1)), rtol=1e-3, atol=1e-3
    )
    # A lasso takes the cells whose centres it holds: rows 3 to 6 and columns 6 to 11.
    lasso = Lasso(((7.0, 4.0), (10.5, 4.0), (10.5, 5.0), (7.0, 5.0)))
    np.testing.assert_array_equal(views.cells(lasso), views.cells(box))
    raw = ds.counts.values[3:6, 6:11].sum(axis=(0, 1))
    for drawn in (lasso, box):
        np.testing.assert_array_equal(views.raw_spectrum(drawn), raw)
    mean = cube[12:, 9:].sum(axis=2).mean()
    assert views.rebuilt_map("total", keep)[-1, -1] == pytest.approx(mean, rel=1e-4)
    assert views.raw_maps()[0, -1, -1] == pytest.approx(ds.counts.values[12:, 9:].sum() / 2)


def test_lines_are_those_that_the_file_was_quantified_by(made):
    ds = open_dataset(made / "quantified.nc")
    views = Views.of(ds)
    assert views.names == ("total", "Fe_Ka", "Ca_Ka")
    np.testing.assert_array_equal(views.rows[1:], ds.line_estimator)
    # Of atoms: k / A, with masses of 55.845 and 40.078.
    assert views.atoms_ratio("Fe_Ka", "Ca_Ka") == pytest.approx(40.078 / (0.9 * 55.845), rel=1e-3)
    maps = [views.rebuilt_map(name, (1, 2)) for name in ("Fe_Ka", "Ca_Ka")]
    ratio = views.ratio(*maps, ("Fe_Ka", "Ca_Ka"))
    seen = np.isfinite(ratio)
    np.testing.assert_array_equal(seen, maps[1] > 0.05 * np.percentile(maps[1], 99.5))
    assert seen.any() and not seen.all()
    factor = views.atoms_ratio("Fe_Ka", "Ca_Ka")
    np.testing.assert_allclose(ratio[seen], (factor * maps[0] / maps[1])[seen])


def test_the_score_of_a_choice_is_that_of_the_library(path):
    ds = denoised()
    gain = ds.component_variance.copy(data=np.linspace(0.5, -0.05, 12)).assign_attrs(
        judged_error=[0.02, 0.003], judged_components=[1, 2]
    )
    ds = ds.assign(component_gain=gain, component_gain_stddev=0 * gain + 0.001)
    views = Views.of(ds)
    assert views.score((1, 2)) == "2.0 ± 0.3 %"
    assert views.score((1, 2, 12)) == "7.0 ± 0.3 %"
    assert views.score((1,)) == "47.0 ± 0.3 %"
    assert views.gain(1) == "−50.0 ± 0.1 %" and views.gain(12) == "+5.0 ± 0.1 %"
    # A file that was not judged has no score.
    assert Review(path).status()["score"] == "" and Review(path).views.gain(1) == ""


def test_an_element_that_is_added_has_maps_and_stays(path):
    review = Review(path)
    names = tuple(name for name, _ in review.status()["maps"])
    assert names[0] == "total" and set(names[1:]) == {"Ca_Ka", "Fe_Ka"}
    review.add_element("Mn")
    assert review.views.names == (*names, "Mn_Ka")
    # There is none: its net counts are within their noise, those of Fe are as before.
    spectrum = review.views.raw_spectrum(review.views.snapped(None))
    net, variance = review.views.rows @ spectrum, review.views.rows**2 @ spectrum
    assert abs(net[3]) < 4 * np.sqrt(variance[3])
    before = Views.of(review.views.ds)
    assert abs(net[1] - before.rows[1] @ spectrum) < 4 * np.sqrt(variance[1])
    for symbol, says in (
        ("Fe", "there is a map of Fe"),
        ("Xx", "element 'Xx' is not known"),
        ("H", "H has no line from 2.02 to 7.98 keV"),
    ):
        with pytest.raises(ParameterError, match=says):
            review.add_element(symbol)
    assert Review(path).choice.elements == ("Mn",)
    review.save()
    assert Recipe.from_toml(open_dataset(path).attrs["recipe"]).quantify.elements == ("Mn",)
    assert Review(path).views.names[-1] == "Mn_Ka"


def test_elements_of_few_pixels_are_looked_for_while_others_are_added(path, monkeypatch):
    review = Review(path)
    look = Views.with_local

    def slow(views):
        if "Mn_Ka" not in review.views.names:
            review.add_element("Mn")
        return look(views)

    monkeypatch.setattr(Views, "with_local", slow)
    assert "local_net_counts" not in review.views.ds
    names = review.views.names
    assert review.find_local().names == review.views.names == (*names, "Mn_Ka")
    assert "local_net_counts" in review.views.ds


# Saving


def test_elements_that_were_not_quantified_have_maps_too(made):
    both = open_dataset(made / "quantified.nc")
    views = Views.of(both.sel(line=["Fe_Ka"]))
    assert views.names == ("total", "Fe_Ka", "Ca_Ka")
    # The fit is of all elements at once, whichever of them were asked for.
    np.testing.assert_allclose(views.rows[1:], both.line_estimator, rtol=1e-4, atol=1e-6)
    assert np.isnan(views.atoms_ratio("Fe_Ka", "Ca_Ka"))


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_what_is_saved_is_there_when_the_file_is_opened(made, tmp_path, suffix):
    path = copied(made, tmp_path, suffix=suffix)
    before = open_dataset(path).load()
    review = Review(path)
    review.set_keep(3, True)
    review.set_keep(2, False)
    review.set_note(3, f"  {HOSTILE} ")
    review.add_region("core=2:9,3:15")
    assert review.save() == f"saved {path.name} and 2 labels in labels.csv"
    ds = open_dataset(path)
    assert ds.component[ds.component_keep == 1].values.tolist() == [1, 3]
    assert ds.component_note.values[2] == HOSTILE and set(ds.component_note.values[3:]) == {""}
    np.testing.assert_array_equal(
        ds.component_signal_probability, before.component_signal_probability
    )
    assert ds.region.values.tolist() == ["all", "core"]
    np.testing.assert_array_equal(ds.region_spectrum[1], before.counts[2:9, 3:15].sum(axis=(0, 1)))
    expected = rebuilt_by_library(before, (1, 3)).counts_denoised
    np.testing.assert_allclose(ds.counts_denoised, expected, rtol=0.05, atol=0.05)
    np.testing.assert_array_equal(ds.counts, before.counts)
    recipe = Recipe.from_toml(ds.attrs["recipe"])
    assert recipe.denoise.keep == "1,3" and recipe.quantify.regions == ("core=2:9,3:15",)
    assert "select keep=1,3" in ds.attrs["history"].splitlines()
    assert read_labels(tmp_path / "labels.csv") == {path: {2: 0.0, 3: 1.0}}
    assert not review.journal.exists() and not review.status()["unsaved"]
    assert Review(path).choice == review.choice == Choice.of(ds)


def test_a_choice_gives_what_the_pipeline_gives_with_it(made):
    ds = open_dataset(made / "quantified.nc").load()
    found = applied(ds, Choice((1, 3))).load()
    chosen = select(ds.drop_dims(["line", "element"]), keep="1,3")
    recipe = Recipe.from_toml(QUANTIFIED)
    expected = quantified(rebuilt(chosen, recipe.denoise))
    for name in ("line_intensity", "atomic_percent", "atomic_percent_stddev"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)
    assert not np.allclose(found.line_intensity, ds.line_intensity)
    again = applied(
        found.assign_attrs(
            notes=[
                "Net counts are negative (line not detected) in Fe_Ka 99% of"
                " the pixels; they are kept so that averages stay unbiased",
                "an older one",
            ]
        ),
        Choice((1, 2)),
    )
    assert sum("are negative" in note for note in again.notes) <= 1
    assert "an older one" in again.notes and not any("99%" in note for note in again.notes)


def test_maps_are_weighted_for_a_new_choice(made):
    ds = open_dataset(made / "plain.nc").load().assign_attrs(recipe=WEIGHTED)
    found = applied(ds, Choice((1, 2, 3)))
    finite = np.isfinite(found.component_map_shrunk).all(["y", "x"])
    assert found.component[finite].values.tolist() == [1, 2, 3]
    assert "held_out_error" not in applied(
        ds.assign(held_out_error=("estimate", np.ones(2))), Choice((1,))
    )


def test_notes_alone_leave_the_results_as_they_are(made):
    ds = open_dataset(made / "quantified.nc").load()
    found = applied(ds, Choice((1, 2), {2: "a"}))
    xr.testing.assert_identical(found.drop_vars("component_note").drop_attrs(), ds.drop_attrs())
    back = applied(found, Choice((1, 2)))
    assert "component_note" not in back.coords


def test_a_file_without_the_cube_stays_without(made, tmp_path):
    path = tmp_path / "small.zarr"
    ds = open_dataset(made / "plain.nc").drop_vars("counts_denoised")
    save_dataset(ds.assign_attrs(recipe=PLAIN + "[output]\ncube = false\n"), path)
    review = Review(path)
    review.set_keep(4, True)
    review.save()
    with xr.open_zarr(path, consolidated=False) as stored:
        assert "counts_denoised" not in stored
    expected = rebuilt_by_library(ds.load(), (1, 2, 4)).counts_denoised
    np.testing.assert_allclose(open_dataset(path).counts_denoised, expected, rtol=1e-5)


def test_what_cannot_be_saved_leaves_the_file_and_the_choice(path):
    review = Review(path)
    for number in (1, 2):
        review.set_keep(number, False)
    review.save_in_words()
    assert review.message == "not saved: no component is kept; keep at least one"
    assert Choice.of(open_dataset(path)).keep == (1, 2)
    assert Review(path).choice.keep == ()


def test_labels_that_cannot_be_written_leave_the_file(path):
    review = Review(path)
    review.set_keep(5, True)
    (path.parent / "labels.csv").mkdir()
    review.save_in_words()
    assert review.message.startswith("not saved: ") and "labels.csv" in review.message
    assert Choice.of(open_dataset(path)).keep == (1, 2)
    (path.parent / "labels.csv").rmdir()
    assert review.save() == "saved map.zarr and 1 labels in labels.csv"
    assert Choice.of(open_dataset(path)).keep == (1, 2, 5)


def test_folder_without_rights_is_named_and_keeps_the_file(path):
    review = Review(path)
    path.parent.chmod(0o555)
    try:
        with unprivileged():
            with pytest.raises(FormatError, match="Permission denied; change the access rights"):
                review.set_keep(5, True)
            with pytest.raises(FormatError, match="Permission denied; change the access rights"):
                write_report(open_dataset(path), path.parent / "report")
    finally:
        path.parent.chmod(0o755)
    assert review.choice.keep == Choice.of(open_dataset(path)).keep == (1, 2)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.slow
def test_a_file_that_somebody_else_changed_is_not_overwritten(path):
    for change in (lambda one: one.set_note(1, "first"), lambda one: one.set_keep(3, True)):
        review, other = Review(path), Review(path)
        change(other)
        other.save()
        saved = Choice.of(open_dataset(path))
        review.set_note(2, "second")
        with pytest.raises(FormatError, match="was changed since it was opened"):
            review.save()
        assert Choice.of(open_dataset(path)) == saved
        review.journal.unlink()


# Journal


def test_choices_that_were_not_saved_are_there_next_time(path):
    review = Review(path)
    review.set_keep(5, True)
    review.set_note(5, "weak")
    review.add_region("rim=0:2,0:16")
    again = Review(path)
    assert again.choice == Choice((1, 2, 5), {5: "weak"}, ("rim=0:2,0:16",))
    assert again.status()["decided"] == [5] and again.status()["unsaved"]
    assert Choice.of(open_dataset(path)).keep == (1, 2)
    again.set_keep(5, False)
    assert again.status()["unsaved"], "a decision for training, though the choice is as it was"


def test_a_review_that_ends_between_file_and_journal_goes_on(path, monkeypatch):
    review = Review(path)
    review.set_keep(5, True)

    def ended(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("edxdenoise.review.state.add_labels", ended)
    with pytest.raises(KeyboardInterrupt):
        review.save()
    monkeypatch.undo()
    again = Review(path)
    assert again.choice.keep == (1, 2, 5) and again.status()["unsaved"]
    again.save()
    assert read_labels(path.with_name("labels.csv")) == {path: {5: 1.0}}


def test_a_journal_of_another_result_is_no_choice_for_this_one(path):
    Review(path).set_keep(5, True)
    ds = open_dataset(path).load()
    save_dataset(ds.assign_attrs(source="another"), path, overwrite=True)
    with pytest.raises(FormatError, match="for another result than that in map.zarr"):
        Review(path)
    journal = path.with_name("map.zarr.review.json")
    # The second was found by ten minutes of fuzzing: JSON knows no infinity, Python reads 1e999 so.
    for text in ('{"keep": [1]}', '{"results": [], "keep": [1e999], "notes": {}}'):
        journal.write_text(text)
        with pytest.raises(FormatError, match="is no journal of a review"):
            Review(path)


def test_two_reviews_of_a_file_do_not_overwrite_each_others_choices(path):
    one, other = Review(path), Review(path)
    one.set_keep(5, True)
    with pytest.raises(FormatError, match="another review of the same file"):
        other.set_keep(6, True)
    assert other.choice.keep == (1, 2) and Review(path).choice.keep == (1, 2, 5)


@pytest.mark.parametrize(
    "region, says",
    [
        ("core=0:2", "must be written"),
        ("core=20:30,0:2", "holds no pixel"),
        ("all=0:2,0:2", "name of an area or a phase"),
        ("phase 1=0:2,0:2", "name of an area or a phase"),
    ],
)
def test_impossible_regions_are_refused(path, region, says):
    review = Review(path)
    with pytest.raises(ParameterError, match=says):
        review.add_region(region)
    assert review.choice.regions == () and not review.journal.exists()


def test_files_without_components_are_refused(tmp_path):
    save_dataset(counts(), tmp_path / "counts.zarr")
    with pytest.raises(FormatError, match="holds no component_keep"):
        Review(tmp_path / "counts.zarr")


def test_labels_of_other_files_and_components_stay(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("component,label,file,by\n1,0,b.zarr,me\n1,1,./a.zarr,me\n7,noise,a.zarr,me\n")
    add_labels(path, tmp_path / "a.zarr", {7: 1.0, 3: 0.0})
    assert read_labels(path) == {
        tmp_path / "b.zarr": {1: 0.0},
        tmp_path / "a.zarr": {1: 1.0, 3: 0.0, 7: 1.0},
    }


# Server


@contextmanager
def serving(path):
    """Serve the review of a file in a thread while the context lasts."""
    served = ReviewServer(Review(path))
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


@pytest.fixture
def server(path):
    with serving(path) as served:
        yield served


@pytest.fixture(scope="module")
def unchanged(made, tmp_path_factory):
    """A server for requests that change nothing."""
    with serving(copied(made, tmp_path_factory.mktemp("unchanged"))) as served:
        yield served


def ask(server, path="", *, body=None, token=None, **headers):
    """Status, headers and text of an answer."""
    link = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    target = f"/{server.token if token is None else token}/{path}"
    link.putrequest("POST" if body else "GET", target, skip_host="Host" in headers)
    content = body if isinstance(body, bytes) else json.dumps(body).encode() if body else b""
    for name, value in {**headers, "Content-Length": len(content)}.items():
        link.putheader(name, value)
    link.endheaders(content)
    answer = link.getresponse()
    text = answer.read()
    link.close()
    return answer.status, answer.headers, text


def do(server, what, *values):
    status, _, text = ask(server, "change", body={"do": what, "with": values})
    return status, json.loads(text)


def test_only_the_page_itself_is_served(server):
    port = server.server_port
    assert server.server_address[0] == "127.0.0.1"
    good = f"http://127.0.0.1:{port}"
    assert ask(server, Origin=good)[0] == 200
    assert ask(server, Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 200
    keep = {"do": "keep", "with": [5, True]}
    for refused in (
        {"token": "wrong"},
        {"token": ""},
        {"token": quote(server.token[:-1] + "é")},
        {"Host": f"evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://127.0.0.1:{port}"},
        {"Origin": f"http://127.0.0.1:{port + 1}"},
    ):
        for path, body in (("", None), ("state", None), ("change", keep)):
            assert ask(server, path, body=body, **refused)[0] == 403, (refused, path)
    assert server.review.choice.keep == (1, 2)


def test_the_page_loads_nothing_from_elsewhere(unchanged):
    _, headers, text = ask(unchanged)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store" and headers["Referrer-Policy"] == "no-referrer"
    links = re.findall(r'(?:src|href)="([^"]*)"', text.decode())
    assert links and all(re.match(r"review\.|component\?|data:,", link) for link in links)
    assert " style=" not in text.decode() and " on" + "click" not in text.decode()
    for name in ("review.js", "review.css"):
        assert ask(unchanged, name)[0] == 200
    assert ask(unchanged, "../../pyproject.toml")[0] == 404


def test_what_a_file_says_is_text_and_nothing_else(unchanged):
    text = ask(unchanged)[2].decode()
    assert "<script>alert" not in text and "<img src=x" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_every_component_is_on_the_page(unchanged):
    text = ask(unchanged)[2].decode()
    assert re.findall(r'data-number="(\d+)"', text) == [str(n) for n in range(1, 13)]
    assert "Ca Kα" in text and "probability 1.00" in text
    for number in (1, 12):
        status, headers, png = ask(unchanged, f"component?number={number}")
        assert (status, headers["Content-Type"], png[:4]) == (200, "image/png", b"\x89PNG")


def test_a_component_is_kept_and_all_is_saved(server, path):
    status, state = do(server, "keep", 5, True)
    assert status == 200 and state["keep"] == [1, 2, 5] and state["unsaved"]
    before = json.loads(ask(server, "spectrum?box=2,9,3,15")[2])
    assert do(server, "keep", 2, False)[1]["keep"] == [1, 5]
    after = json.loads(ask(server, "spectrum?box=2,9,3,15")[2])
    assert before["box"] == [2, 9, 3, 15] and before["raw"] == after["raw"]
    cube = rebuilt_by_library(open_dataset(path).load(), (1, 5)).counts_denoised[2:9, 3:15]
    np.testing.assert_allclose(after["rebuilt"], cube.sum(["y", "x"]), rtol=1e-4, atol=1e-2)
    assert {line["name"] for line in after["lines"]} == {"all X-rays", "Ca Kα", "Fe Kα"}
    do(server, "note", 5, HOSTILE)
    do(server, "add region", "a=1:3,1:3")
    state = do(server, "save")[1]
    assert state["message"] == "saved map.zarr and 2 labels in labels.csv"
    assert not state["unsaved"]
    assert Choice.of(open_dataset(path)) == Choice((1, 5), {5: HOSTILE}, ("a=1:3,1:3",))
    assert do(server, "remove region", "a=1:3,1:3")[1]["regions"] == []


def test_maps_and_ratios_have_the_same_colours_raw_and_rebuilt(server):
    while not json.loads(ask(server, "state")[2])["raw"]:
        pass
    one = json.loads(ask(server, "map?name=Fe_Ka")[2])
    assert one["words"] == "Fe Kα" and one["legend"]["unit"] == "net counts per pixel"
    ratio = json.loads(ask(server, "map?name=Fe_Ka&over=Ca_Ka")[2])
    assert ratio["words"] == "Fe Kα / Ca Kα"
    assert ratio["legend"]["unit"] == "ratio of net counts", "there are no k-factors"
    for found in (one, ratio):
        assert found["raw"] != found["rebuilt"]
        assert all(found[n].startswith("data:image/png;base64,") for n in ("raw", "rebuilt"))


@pytest.mark.parametrize(
    "target, body",
    [
        ("map?name=Xx_Ka", None),
        ("spectrum?box=1,2,3", None),
        ("spectrum?box=1,2,3,-4", None),
        ("component?number=13", None),
        ("component", None),
        ("component?number=" + "9" * 5000, None),
        ("spectrum?box=0,1,0," + "9" * 30, None),
        ("spectrum?lasso=0,0+1,1", None),
        ("spectrum?lasso=50,50+60,60+50,60", None),
        ("overlay?green=Xx", None),
        ("change", b"[" * 60000),
        ("change", b'{"do": "keep", "with": [' + b"9" * 5000 + b", true]}"),
        ("change", b'{"do": "\xff'),
        ("change", ["keep"]),
        ("change", {"do": "keep", "with": 5}),
        ("change", {"do": ["keep"], "with": ["a"]}),
        ("change", {"do": "note", "with": [1, "\ud800"]}),
        ("change", {"do": "note", "with": [1, "a\x1b[31m"]}),
        ("change", {"do": "add region", "with": ["a\nb=0:1,0:1"]}),
        ("change", {"do": "add region", "with": ["a=/etc/passwd"]}),
        ("change", {"do": "keep", "with": [1, "yes"]}),
        ("change", {"do": "keep", "with": [99, True]}),
        ("change", {"do": "keep", "with": [1]}),
        ("change", {"do": "note", "with": [1, "a" * 3000]}),
        ("change", {"do": "__init__", "with": []}),
        ("change", {"do": "add region", "with": ["all=0:1,0:1"]}),
        ("change", {"do": "add element", "with": ["<b>"]}),
        ("change", {"do": "add element", "with": ["Fe"]}),
        ("change", {"do": "keep", "with": ["a" * 70000]}),
        ("else", {"do": "save"}),
    ],
)
def test_requests_that_mean_nothing_change_nothing(unchanged, capsys, target, body):
    status, _, text = ask(unchanged, target, body=body)
    assert capsys.readouterr().err == ""
    assert status == 400 and "\n" not in json.loads(text)["error"]
    assert not unchanged.review.status()["unsaved"] and not unchanged.review.journal.exists()


def test_odd_addresses_and_browsers_that_go_away_are_no_errors(server, capsys):
    place = ("127.0.0.1", server.server_port)
    for target, says in ((b"http://[/", b"403"), (b"//[", b"403"), (None, b"")):
        with socket.create_connection(place, timeout=30) as link:
            if target is None:
                # A connection that is reset while the page is sent.
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                target = f"/{server.token}/".encode()
            link.sendall(b"GET %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (target, place[1]))
            if says:
                assert says in link.recv(100)
    assert ask(server, "state")[0] == 200
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_server_that_is_killed_loses_nothing(path):
    command = [sys.executable, "-m", "edxdenoise", "review", str(path), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = urlsplit(process.stdout.readline().strip())
            link = http.client.HTTPConnection(address.netloc, timeout=30)
            body = json.dumps({"do": "keep", "with": [7, True]})
            link.request("POST", f"{address.path}change", body)
            assert json.loads(link.getresponse().read())["keep"] == [1, 2, 7]
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert Review(path).choice.keep == (1, 2, 7)


def test_errors_of_the_command_are_one_line(path, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        for args, says in (
            ([tmp_path / "none.zarr"], "does not exist"),
            ([path, "--port", port], f"port {port} cannot be used: Address already in use"),
        ):
            result = CliRunner().invoke(main, ["review", "--no-browser", *map(str, args)])
            assert result.exit_code == 1 and says in result.stderr
            assert result.stderr.count("Error") == 1 and result.stdout == ""


def test_notes_are_shown_by_components(made, tmp_path):
    path = tmp_path / "a.nc"
    save_dataset(applied(open_dataset(made / "plain.nc"), Choice((1, 2), {2: "rim"})), path)
    result = CliRunner().invoke(main, ["components", str(path), "--json"])
    assert [row["note"] for row in json.loads(result.stdout)][:3] == ["", "rim", ""]
    assert "rim" in CliRunner().invoke(main, ["components", str(path)]).stdout
