"""Models compared without a truth, on phantoms that have one."""

import json
from functools import lru_cache

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import cube, phases
from scipy.ndimage import gaussian_filter

from edxdenoise.blocks import chunk
from edxdenoise.cli import main
from edxdenoise.config import Denoise, Quantify
from edxdenoise.errors import DataError, ParameterError
from edxdenoise.io import save_dataset
from edxdenoise.quantification import LineSpec
from edxdenoise.report.verdicts import (
    as_records,
    model_table,
    quantity_table,
    supported,
    verdict,
)
from edxdenoise.schema import COUNTS
from edxdenoise.simulation import simulate
from edxdenoise.validation.comparison import compare
from edxdenoise.validation.models import (
    DEFAULT_MODELS,
    WIDTHS,
    blurred,
    computed_components,
    parse_model,
    parse_models,
)

LINES = {
    "I_La": LineSpec(3.413, background=((2.8155, 2.925), (5.272, 5.3815))),
    "Pb_La": LineSpec(4.374, background=((10.0452, 10.224), (10.82, 10.9889))),
    "In_La": LineSpec(2.62, background=((2.8155, 2.925), (5.272, 5.3815))),
    "C_Ka": LineSpec(2.452, background=((0.145, 0.201), (0.64, 0.696))),
}
MODELS = ("pca:1", "pca:4", "pca:12", "nmf:4")
DENOISE = Denoise(select="spatial")
QUANTIFY = Quantify(ratios=("I/Pb",))


@lru_cache(maxsize=1)
def phantom():
    ds = simulate(
        "solar-cell", shape=(48, 64), channels=160, energy_width=0.08, counts_per_pixel=1500
    )
    return ds[["counts", "expected_counts"]].compute()


@pytest.fixture(scope="module")
def compared():
    return compare(phantom(), MODELS, lines=LINES, quantify=QUANTIFY, folds=4)


def test_ranks_as_the_truth(compared):
    own = compared.sel(region="all")
    for estimate in ("deviance", "error"):
        ranks = np.argsort(own[estimate].values)
        np.testing.assert_array_equal(ranks, np.argsort(own[f"true_{estimate}"].values))
    # At 4 x 10^5 cells the models differ by far more than chance.
    assert supported(compared)[0] == str(
        own["model"][int(own["true_deviance"].argmin("model"))].values
    )


def test_values_are_as_near_to_the_truth_as_they_say(compared):
    """Within 4 standard errors, in all regions: the pull of one number is normal."""
    z = (compared["error"] - compared["true_error"]) / compared["error_stddev"]
    assert np.abs(z).max() < 4.5 and z.std() > 0.1
    off = compared["deviance"] - compared["true_deviance"]
    difference = off.isel(model=1) - off.rename(model="model_other")
    stddev = compared["deviance_stddev"].isel(model=1)
    z = (difference / stddev.where(stddev > 0)).values
    assert np.nanmax(np.abs(z)) < 4.5
    z = (compared["quantity_error"] - compared["true_quantity_error"]) / compared[
        "quantity_error_stddev"
    ]
    assert np.abs(z.sel(region="all")).max() < 4.5


def test_contrast_tells_what_is_lost(compared):
    own = compared.sel(region="all", quantity="I at%")
    np.testing.assert_allclose(own["quantity_contrast"], own["true_quantity_contrast"], atol=0.1)
    assert own["quantity_contrast"].sel(model="PCA 1") < 0.2 < 0.9
    assert own["quantity_contrast"].sel(model="PCA 4") > 0.9
    noise = own["quantity_noise"]
    # Noise of other random parts differs by some percent.
    assert noise.sel(model="PCA 12") > 0.9 * noise.sel(model="PCA 4")


def test_residuals_show_what_one_component_cannot(compared):
    lost = np.abs(compared["residual"])
    assert lost.sel(model="PCA 1").max() > 20 > lost.sel(model="PCA 12").max()
    # Component 1 holds the totals of the map.
    assert lost.sel(region="all", model="PCA 4").max() < 1


def test_regions(compared):
    names = compared["region"].values.tolist()
    assert names[0] == "all" and names[-1] == f"cluster {len(clusters_of(names))}"
    assert {"control 1", "control 2", "treated 1", "treated 2"} == set(names[1:]) - clusters_of(
        names
    )
    assert 2 <= len(clusters_of(names)) <= 8


def clusters_of(names):
    return {name for name in names if name.startswith("cluster")}


@pytest.mark.slow
def test_blocks_do_not_matter(compared):
    lazy = chunk(phantom(), memory_limit=2_000_000, workers=2)
    assert lazy[COUNTS].data.npartitions > 3
    # NMF ends by a tolerance; its own tests compare blocks.
    again = compare(lazy, MODELS[:3], lines=LINES, quantify=QUANTIFY, folds=4)
    compared = compared.isel(model=slice(3))
    # Not those of quantities: which pixels count depends on all models.
    for name in ("deviance", "error", "true_error", "residual"):
        np.testing.assert_allclose(
            again[name].sel(region="all"),
            compared[name].sel(region="all"),
            rtol=1e-4,
            atol=1e-4,
        )


def test_the_dataset_given_is_not_changed():
    ds = phases((18, 20, 40))
    before = ds.copy(deep=True)
    compare(ds, ["pca:1", "pca:3"], folds=2)
    assert before.identical(ds)


@pytest.mark.slow
def test_seeds_differ_and_repeat():
    ds = phases((18, 20, 40))
    first, again, other = (
        compare(ds, ["pca:1", "pca:3"], denoise=Denoise(seed=seed), folds=2)["deviance"]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.slow
def test_supports_the_true_number_of_components():
    ds = phases((40, 40, 40), counts=400)
    compared = compare(ds, [f"pca:{n}" for n in (1, 2, 3, 4, 8)], folds=8)
    assert supported(compared) == ["PCA 3"]
    sentences = verdict(compared)
    assert sentences[0].startswith("Held-out counts support PCA 3: the deviance of the next, PCA 4")
    assert "7/8 of the counts" in sentences[-1]


def test_equal_models_are_not_told_apart():
    ds = phases((30, 30, 40), counts=400)
    compared = compare(ds, ["pca:3", "pca:1-3", "pca:1"], folds=2)
    assert set(supported(compared)) == {"PCA 3", "PCA 1-3"}
    assert "do not tell apart, before all others" in verdict(compared)[0]


@pytest.mark.slow
def test_without_truth_lines_and_factors():
    ds = phantom().drop_vars("expected_counts")
    compared = compare(ds, ["pca:1", "pca:3"], lines={"I_La": LineSpec()}, folds=2)
    assert "residual" in compared and "line_deviance" in compared
    assert not {"quantity_error", "true_error", "quantity_map"} & set(compared)
    heads, rows = model_table(compared)
    assert len(heads) == 3 and [row[0] for row in rows] == ["PCA 1", "PCA 3"]
    bare = compare(ds, ["pca:1", "pca:3"], folds=2)
    assert "residual" not in bare
    np.testing.assert_array_equal(bare["deviance"].sel(region="all"), compared["deviance"][:, 0])


def test_tables_and_records(compared):
    heads, rows = model_table(compared)
    assert len(heads) == 6 and all(len(row) == 7 for row in rows)
    assert sum(row[2] == "0" for row in rows) == 1
    heads, rows = quantity_table(compared)
    assert heads == ["spread", *compared["model"].values]
    assert [row[0] for row in rows] == ["I at%", "Pb at%", "In at%", "C at%", "I/Pb"]
    records = json.loads(json.dumps(as_records(compared)))
    assert [record["model"] for record in records["models"]] == heads[1:]
    first = records["models"][1]
    assert first["components"] == [1, 2, 3, 4] and first["quantities"]["I/Pb"]["noise"] > 0
    assert first["regions"]["all"]["deviance"] == float(compared["deviance"][1, 0])


@pytest.mark.slow
def test_what_denoise_does_is_a_model():
    """Spatial shrinkage takes the noise of components off: held-out counts and the truth see it."""
    compared = compare(phantom(), ["pca:spatial", "denoise"], denoise=DENOISE, folds=2)
    assert supported(compared) == ["denoise"]
    own = compared.sel(region="all")
    for name in ("true_deviance", "true_error", "error"):
        assert own[name].sel(model="denoise") < 0.9 * own[name].sel(model="PCA spatial")
    z = (own["error"] - own["true_error"]) / own["error_stddev"]
    assert np.abs(z).max() < 4.5


@pytest.mark.slow
def test_a_blur_is_a_model():
    """Its width is chosen by the risk alone; lazy counts give the same, and no components."""
    y, _ = np.mgrid[:40, :50]
    expected = 2 + np.cos(y / 6)[..., np.newaxis] * np.ones(9)
    ds = cube(np.random.default_rng(0).poisson(expected).astype(np.uint8))
    # Without the zero peak.
    ds, expected = ds.isel(energy=slice(1, None)), expected[..., 1:]
    cubes = [gaussian_filter(ds.counts.values.astype(float), (w, w, 0)) for w in WIDTHS]
    least = min(np.mean((each - expected) ** 2) for each in cubes)
    found = blurred(ds).counts_denoised
    assert np.mean((found.values - expected) ** 2) < 1.1 * least
    lazy = blurred(ds.chunk({"y": 16, "x": -1})).counts_denoised
    np.testing.assert_allclose(lazy.values, found.values, rtol=1e-4)
    truth = ds.counts.copy(data=expected.astype(np.float32))
    compared = compare(ds.assign(expected_counts=truth), ["pca:1", "blur"], folds=2)
    own = compared.sel(region="all", model="blur")
    assert str(own["kept"].values) == "" and as_records(compared)["models"][1]["components"] == []
    assert abs(own["error"] - own["true_error"]) < 4.5 * own["error_stddev"]
    assert own["true_error"] < compared.sel(region="all", model="PCA 1")["true_error"]


def test_names_of_models():
    assert [parse_model(text).keep for text in ("pca:4", "pca:1-4,8", "pca: 8,")] == [
        "1-4",
        "1-4,8",
        "8",
    ]
    assert parse_model("pca:second-elbow").select == "second-elbow"
    model = parse_model("nmf:16")
    assert (model.name, model.components, model.keep) == ("NMF 16", 16, None)
    assert [model.name for model in parse_models(DEFAULT_MODELS)] == [
        "denoise",
        "PCA 4",
        "PCA 16",
        "PCA cnn",
        "NMF 4",
        "NMF 16",
    ]


@pytest.mark.parametrize(
    "text",
    ["pca", "pca:", "pca:0", "pca:x", "nmf:1-4", "nmf:elbow", "ica:4", "pca:4-2", "4", "denoise:4"],
)
def test_impossible_models(text):
    with pytest.raises(ParameterError, match=f"'{text}'|{text.partition(':')[2] or text}"):
        parse_model(text)


def test_models_are_two_and_different():
    with pytest.raises(ParameterError, match="at least two"):
        parse_models(["pca:4"])
    with pytest.raises(ParameterError, match="'PCA 4' is named twice"):
        parse_models(["pca:4", "nmf:4", "pca: 4"])


def test_no_more_components_than_needed():
    recipe = Denoise()
    assert computed_components(parse_models(["pca:4", "pca:2,9"]), recipe) == 9
    assert computed_components(parse_models(["pca:4", "pca:elbow"]), recipe) == 100
    assert computed_components(parse_models(["pca:30", "pca:elbow"]), Denoise(components=20)) == 30


def test_counts_must_be_whole():
    with pytest.raises(DataError, match="unsigned"):
        compare(cube(np.full((4, 5, 6), 0.5)), ["pca:1", "pca:2"])


def test_more_components_than_channels():
    with pytest.raises(ParameterError, match="'1-50' must lie within 1-40"):
        compare(phases((12, 10, 40)), ["pca:1", "pca:50"], folds=2)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("compare") / "phantom.zarr"
    save_dataset(phantom(), path)
    return path


def run(*args, status=0):
    result = CliRunner().invoke(main, ["compare", *map(str, args)])
    assert result.exit_code == status, result.output
    return result


@pytest.mark.slow
def test_command(file, tmp_path):
    report = tmp_path / "compared"
    options = ["--model", "pca:1", "--model", "pca:4", "--folds", 2, "--energy", "0.2:12"]
    factors = ["--k-factor", "Pb_La=4.374", "--k-factor", "I_La=3.413", "--ratio", "I/Pb"]
    result = run(file, *options, *factors, "--report", report)
    assert "Held-out counts support PCA 4" in result.stdout
    # The truth went through the same preparation.
    assert "true error" in result.stdout and "PCA 1 keeps" in result.stdout
    names = {path.name for path in report.iterdir()}
    pictures = {"models.png", "quality.png", "residuals.png", "map_I-Pb.png"}
    assert pictures | {"index.html", "models.csv", "quantities.csv"} <= names
    page = (report / "index.html").read_text()
    assert all(picture in page for picture in pictures) and "support PCA 4" in page
    result = run(file, *options, "--report", report, status=1)
    assert "--overwrite" in result.output


def test_command_json(file):
    result = run(file, "--model", "pca:1", "--model", "pca:4", "--folds", 2, "--json")
    found = json.loads(result.stdout)
    assert found["supported"] == ["PCA 4"] and found["folds"] == 2


def test_command_with_a_recipe(file, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "[prepare]\nenergy = [0.2, 12.0]\nrebin_energy = 2\n[lines.I_La]\n[lines.Pb_La]\n"
    )
    options = ["--model", "pca:1", "--model", "pca:3", "--folds", 2, "--recipe", recipe]
    result = run(file, *options)
    assert "true deviance" in result.stdout and "contrast" not in result.stdout.lower()


@pytest.mark.parametrize(
    "args, words",
    [
        (["--model", "pca:4"], "at least two"),
        (["--model", "pca:4", "--model", "ica:4"], "'ica:4'"),
        (["--ratio", "I/Pb", "--k-factor", "Pb_La=4"], "I/Pb"),
        (["--k-factor", "Xx_La=4"], "'Xx'"),
    ],
)
def test_command_says_what_is_wrong(file, args, words):
    result = run(file, *args, status=1)
    assert words in result.output and len(result.output.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_recipe_for_one_decomposition_serves_both():
    ds = phases((18, 20, 40))
    recipe = Denoise(decomposition="nmf", components=3, loss="poisson", tolerance=1e-4)
    compared = compare(ds, ["pca:3", "nmf:3"], denoise=recipe, folds=2)
    assert compared["kept"].values.tolist() == ["1,2,3", "1,2,3"]
