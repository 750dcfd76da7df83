"""The face for notebooks: open any file, and what ``ds.edx`` says, draws and becomes."""

import base64
import io
import re

import numpy as np
import pytest
from helpers import solar_cell
from PIL import Image

import edxdenoise as ed
from edxdenoise.blocks import scheduler
from edxdenoise.errors import ParameterError


@pytest.fixture(scope="module")
def maps():
    """A small film, denoised and quantified by keywords."""
    cell = solar_cell(1000.0, shape=(66, 100), channels=160)[["counts"]].isel(y=slice(6, 18))
    lines = {"Pb_La": 4.4, "I_La": (3.4, 0.2)}
    with scheduler("threads"):
        return ed.quantify(ed.denoise(cell, select="elbow"), lines, ratios=["I/Pb"])


def texts(figure):
    return " ".join(
        text.get_text() for text in figure.findobj(match=lambda a: hasattr(a, "get_text"))
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_maps_are_drawn_by_name(maps):
    for name, caption in (("Pb", "Pb"), ("I/Pb", "I/Pb"), ("Pb_La", "Pb Lα")):
        figure = maps.edx.plot(name)
        assert caption in texts(figure) and figure.axes[0].images
    assert "standard deviation" in texts(maps.edx.plot("Pb", stddev=True))
    with pytest.raises(ParameterError, match="no map 'Zr'; there are Pb, I, I/Pb, Pb_La, I_La, Cu"):
        maps.edx.plot("Zr")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_two_or_three_maps_are_laid_over_each_other(maps, tmp_path):
    figure = maps.edx.plot(["Pb", "I", "Cu"])
    shown = figure.axes[0].images[0].get_array()
    high = float(re.search(r"Pb: 0 to (\S+) at%", texts(figure))[1])
    share = np.clip(np.nan_to_num(maps.atomic_percent.sel(element="Pb")) / high, 0, 1)
    assert np.corrcoef(shown[..., 0].ravel(), share.ravel())[0, 1] > 0.95
    assert "Cu Kα: 0 to " in texts(figure)
    for names in (["Pb"], ["Pb", "I", "Cu", "In"]):
        with pytest.raises(ParameterError, match=f"{len(names)} maps cannot .* give 2 or 3"):
            maps.edx.plot(names)
    for suffix, start in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")):
        path = tmp_path / f"map.{suffix}"
        figure.savefig(path)
        assert path.read_bytes().startswith(start)
    assert round(Image.open(tmp_path / "map.png").info["dpi"][0]) == 300
    assert "Cu Kα" in (tmp_path / "map.svg").read_text(), "letters are letters"
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_elements_that_are_not_quantified_have_maps_of_net_counts(maps):
    figure = maps.edx.plot("Cu")
    assert "Cu Kα" in texts(figure) and "net counts" in texts(figure)
    shown = figure.axes[0].images[0].get_array()
    # Copper is at the lower edge of the film.
    assert shown[-1].mean() > 20 * shown[3].mean()
    with pytest.raises(ParameterError, match="'Cu' has no standard deviation; quantify first"):
        maps.edx.plot("Cu", stddev=True)


def test_tables(maps):
    assert set(maps.edx.table().quantity) == {"Pb at%", "I at%", "I/Pb"}
    components = maps.edx.components()
    assert components.keep.tolist() == (maps.component_keep.values == 1).tolist()
    assert {"Pb", "I"} <= set(maps.edx.elements().element)


def test_spectrum_components_and_scree_are_figures(maps):
    words = texts(maps.edx.plot_spectrum())
    assert "Pb" in words and "denoised" in words
    raw = maps[["counts"]].assign_attrs(maps.attrs).edx.plot_spectrum()
    assert [text.get_text() for text in raw.axes[0].get_legend().get_texts()] == ["raw"]
    assert texts(maps.edx.plot_scree())
    (page,) = maps.edx.plot_components()
    assert len([axes for axes in page.axes if axes.images]) >= maps.component_keep.values.sum()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_nothing_lies_outside_a_figure(maps):
    names = ["a control with a long name 1", "treated at 85 degrees for a thousand hours 1"]
    named = maps.assign_coords(area=maps.area.assign_attrs(area_label=names))
    figures = [named.edx.plot("Pb"), named.edx.plot("Pb_La", stddev=True), named.edx.plot("Cu")]
    figures += [named.edx.plot(["Pb", "I", "Cu"]), named.edx.plot_spectrum()]
    figures += [named.edx.plot_scree(), *named.edx.plot_components()]
    for figure in figures:
        figure.canvas.draw()
        width, height = figure.get_size_inches()
        box = figure.get_tightbbox()
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.02


def test_facts_are_shown_and_escaped(maps):
    named = maps.assign_attrs(title="<script>")
    shown = named.edx._repr_html_()
    assert "&lt;script&gt;" in shown and "<script>" not in shown
    (data,) = re.findall(r"src='data:image/png;base64,([^']+)'", shown)
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (maps.sizes["x"], maps.sizes["y"])
    assert "<img" not in maps[["counts"]].edx._repr_html_(), "counts are not read for a repr"
    assert f"{int(maps.component_keep.sum())} of " in repr(maps.edx)
    np.testing.assert_allclose(maps.edx.sum_spectrum, maps.counts.sum(("y", "x")))


def test_to_hyperspy_and_back(maps):
    pytest.importorskip("exspy", reason="HyperSpy's EDS signals are eXSpy's")
    raw = maps[["counts"]]
    signal = raw.edx.to_hyperspy()
    assert signal.metadata.Signal.signal_type == "EDS_TEM"
    np.testing.assert_array_equal(signal.data, raw.counts)
    back = ed.from_hyperspy(signal)
    np.testing.assert_array_equal(back.counts, raw.counts)
    np.testing.assert_allclose(back.energy, raw.energy)
    assert back.edx.beam_energy == raw.edx.beam_energy
    with pytest.raises(ParameterError, match="no map of spectra"):
        ed.from_hyperspy(signal.sum())


def test_open_gives_results_whole_and_foreign_files_as_counts(maps, tmp_path):
    maps.edx.save(tmp_path / "maps.nc")
    assert "ratio_map" in ed.open(tmp_path / "maps.nc")
    maps.edx.save(tmp_path / "maps.hspy")
    assert list(ed.open(tmp_path / "maps.hspy").data_vars) == ["counts"]
