"""The face for notebooks: open any file, and what ``ds.edx`` says, draws and becomes."""

import numpy as np
import pytest
from helpers import solar_cell

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


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_maps_are_drawn_by_name(maps):
    for name, caption in (("Pb", "Pb"), ("I/Pb", "I/Pb"), ("Pb_La", "Pb La")):
        figure = maps.edx.plot(name)
        assert caption in texts(figure) and figure.axes[0].images
    assert "standard deviation" in texts(maps.edx.plot("Pb", stddev=True))
    with pytest.raises(ParameterError, match="no map 'Zr'; there are I, Pb|Pb, I"):
        maps.edx.plot("Zr")


def test_tables(maps):
    assert set(maps.edx.table().quantity) == {"Pb at%", "I at%", "I/Pb"}
    components = maps.edx.components()
    assert components.keep.tolist() == (maps.component_keep.values == 1).tolist()
    assert {"Pb", "I"} <= set(maps.edx.elements().element)


def test_spectrum_components_and_scree_are_figures(maps):
    assert "Pb" in texts(maps.edx.plot_spectrum())
    assert texts(maps.edx.plot_scree())
    (page,) = maps.edx.plot_components()
    assert len([axes for axes in page.axes if axes.images]) >= maps.component_keep.values.sum()


def test_facts_are_shown_and_escaped(maps):
    named = maps.assign_attrs(title="<script>")
    shown = named.edx._repr_html_()
    assert "&lt;script&gt;" in shown and "<script>" not in shown
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
