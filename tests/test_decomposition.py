"""From a recipe to NMF: spectra of files and elements, number and names of components, errors."""

import json

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from edxdenoise.cli import main
from edxdenoise.config import Denoise, Quantify
from edxdenoise.errors import FormatError
from edxdenoise.io import read_spectra, save_dataset, write_msa
from edxdenoise.io.read import resampled
from edxdenoise.pipeline import component_names, decompose, denoise, quantify
from edxdenoise.preprocess import weight
from edxdenoise.quantification import LineSpec
from edxdenoise.quantification.estimators import behind_projection
from edxdenoise.simulation import simulate
from edxdenoise.xray import element_spectrum


@pytest.fixture(scope="module")
def phantom():
    return simulate("solar-cell", shape=(24, 30), channels=160, energy_width=0.08).compute()


@pytest.fixture(scope="module")
def files(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spectra")
    save_dataset(phantom, folder / "phantom.zarr")
    copper = element_spectrum("Cu", phantom.energy.values)
    write_msa(folder / "cu.msa", phantom, 1000 * copper, title="Cu")
    return folder


def test_spectrum_of_a_file_is_held(phantom, files):
    recipe = Denoise(
        decomposition="nmf",
        components=4,
        fix_spectrum=(str(files / "cu.msa"),),
        fix_element=("Pb",),
    )
    found = decompose(weight(phantom), recipe)
    held = np.atleast_1d(found.component_spectrum.attrs["held"])
    spectra = found.component_spectrum * found.weight_energy
    spectra = (spectra / spectra.sum("energy")).sel(component=held).values
    energy = phantom.energy.values
    wanted = [element_spectrum(name, energy, beam_energy=200.0) for name in ("Cu", "Pb")]
    distance = np.abs(np.array(wanted)[:, None] - spectra).sum(axis=2)
    assert distance.min(axis=1).max() < 1e-4


def test_starts_from_phases_of_a_phantom(phantom, files):
    recipe = Denoise(decomposition="nmf", start=(str(files / "phantom.zarr"),), tolerance=1e-4)
    found = decompose(weight(phantom), recipe)
    assert found.sizes["component"] == phantom.sizes["phase"]
    assert "init=given" in found.history


@pytest.mark.parametrize(("selector", "least"), [("auto", 1), ("split", 2)])
def test_number_of_components_from_pca(phantom, selector, least):
    recipe = Denoise(decomposition="nmf", components="auto", select=selector)
    assert least <= decompose(weight(phantom), recipe).sizes["component"] < 30


def test_names(phantom):
    ds = weight(phantom)
    spectra = np.array([element_spectrum(name, ds.energy.values) for name in ("Cu", "Pb")])
    ds = ds.assign(component_spectrum=(("component", "energy"), spectra / ds.weight_energy.values))
    names = component_names(ds)
    assert names[0].startswith("Cu") and names[1].startswith("Pb")


def test_resampling_keeps_counts():
    edges, wanted = np.linspace(0, 10, 101), np.linspace(0, 10, 38)
    spectra = np.random.default_rng(0).uniform(size=(2, 100))
    again = resampled(edges, spectra, wanted)
    np.testing.assert_allclose(again.sum(axis=1), spectra.sum(axis=1))


def test_refused_files(phantom, files, tmp_path):
    energy = phantom.energy.values
    with pytest.raises(FormatError, match="covers .* must cover .*crop the map"):
        read_spectra(files / "cu.msa", np.append(energy, energy[-1] + np.arange(1, 9) * 0.08))
    principal = denoise(phantom, Denoise(components=5, select="elbow"))
    save_dataset(principal, tmp_path / "pca.nc")
    with pytest.raises(FormatError, match="negative in part"):
        read_spectra(tmp_path / "pca.nc", energy)
    with pytest.raises(FormatError, match="does not exist"):
        read_spectra(tmp_path / "no.msa", energy)


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_keywords_are_a_recipe(phantom):
    keys = {"decomposition": "nmf", "components": 2, "max_iterations": 2}
    xr.testing.assert_identical(denoise(phantom, **keys), denoise(phantom, Denoise(**keys)))


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_errors_are_those_of_least_squares(phantom):
    """The projection is one: it keeps what the spectra hold, and so does a second one."""
    names = {"Cu_Ka": LineSpec(1.7), "Pb_La": LineSpec(4.374)}
    recipe = Denoise(decomposition="nmf", components=4)
    model = denoise(phantom, recipe)
    estimators = np.zeros((1, phantom.sizes["energy"]))
    estimators[0, 95:106] = 1
    rows = behind_projection(model, estimators)
    spectra = model.component_spectrum.values * model.weight_energy.values
    np.testing.assert_allclose(spectra @ rows[0], spectra @ estimators[0], rtol=1e-8)
    np.testing.assert_allclose(behind_projection(model, rows), rows, atol=1e-10)
    maps = quantify(model, names, Quantify(intensities="fit"))
    assert (maps.line_intensity_stddev > 0).all()


@pytest.mark.slow
def test_command(files, tmp_path):
    out = tmp_path / "out.zarr"
    command = ["-q", "denoise", str(files / "phantom.zarr"), "-o", str(out)]
    command += ["--decomposition", "nmf", "--components", "3", "--fix-element", "Cu"]
    command += ["--report", str(tmp_path / "report")]
    run = CliRunner().invoke(main, command)
    assert run.exit_code == 0, run.output
    assert {"index.html", "scree.png", "components_01.png"} <= {
        path.name for path in (tmp_path / "report").iterdir()
    }
    shown = CliRunner().invoke(main, ["components", str(out), "--json"])
    rows = json.loads(shown.output)
    assert [row["keep"] for row in rows] == [True] * 3
    assert sum(row["name"].endswith("(held)") for row in rows) == 1
    judged = CliRunner().invoke(main, ["classify", str(out)])
    assert judged.exit_code == 1 and "judges principal components" in judged.output
