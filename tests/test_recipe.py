"""The recipe: what it takes, what it refuses and how it says so."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edxdenoise.config import (
    LOSSES,
    SELECTORS,
    SOLVERS,
    WEIGHTINGS,
    Denoise,
    Input,
    Output,
    Prepare,
)
from edxdenoise.errors import RecipeError
from edxdenoise.recipe import Recipe

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
# TOML has whole numbers of 64 bits.
WHOLE = st.integers(1, 2**63 - 1)


def ranges(numbers):
    return st.tuples(numbers, numbers).filter(lambda pair: pair[0] < pair[1])


ENERGY = st.none() | ranges(st.floats(allow_nan=False))
CROP = st.none() | ranges(st.integers(0, 10**6)) | st.tuples(st.integers(-9, 9), st.just(inf))

RECIPES = st.builds(
    Recipe,
    input=st.builds(
        Input,
        files=st.lists(TEXT).map(tuple),
        signal=st.none() | TEXT,
        exposure=st.none()
        | st.lists(st.floats(0, exclude_min=True, allow_infinity=False)).map(tuple),
    ),
    prepare=st.builds(
        Prepare, energy=ENERGY, rebin_energy=WHOLE, rebin_xy=WHOLE, crop_y=CROP, crop_x=CROP
    ),
    denoise=st.builds(
        Denoise,
        weighting=st.sampled_from(WEIGHTINGS),
        components=st.none() | WHOLE,
        solver=st.sampled_from(SOLVERS),
        select=st.sampled_from(("auto", *SELECTORS)),
        keep=st.none()
        | st.from_regex(r"[1-9][0-9]{0,3}(-[1-9][0-9]{0,3})?(,[1-9]){0,3}", fullmatch=True),
        seed=st.integers(0, 2**63 - 1),
    ),
    output=st.builds(Output, file=st.none() | TEXT, report=st.none() | TEXT),
)


NMF = st.builds(
    Denoise,
    decomposition=st.just("nmf"),
    components=st.none() | WHOLE,
    loss=st.sampled_from(LOSSES),
    start=st.lists(TEXT).map(tuple),
    fix_spectrum=st.lists(TEXT).map(tuple),
    closure=st.booleans(),
    tolerance=st.floats(0, 1, exclude_max=True),
    max_iterations=WHOLE,
)


@pytest.mark.slow
@given(st.builds(Recipe, denoise=NMF))
def test_round_trip_of_nmf(recipe):
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_selector_by_decomposition():
    assert Denoise().select == "cnn"
    assert Denoise(decomposition="nmf").select == "all"
    assert Denoise(decomposition="nmf", components="auto").select == "elbow"
    assert "loss" not in Recipe(denoise=Denoise()).to_toml()


@given(RECIPES)
def test_round_trip(recipe):
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_contract_text():
    recipe = Recipe.from_toml("""
        [input]
        files = ["Control1.emi", "Aerosol1.emi"]
        exposure = [0.83, 1]
        [prepare]
        energy = [0, 13.0]
        rebin_energy = 4
        crop_y = [10, inf]
        [denoise]
        components = 100
        keep = "1-4,8,10,16"
        [output]
        file = "perovskite.zarr"
        report = "report/"
        """)
    assert recipe.input == Input(("Control1.emi", "Aerosol1.emi"), exposure=(0.83, 1.0))
    assert recipe.prepare == Prepare(energy=(0.0, 13.0), rebin_energy=4, crop_y=(10, inf))
    assert isinstance(recipe.prepare.energy[0], float)
    assert recipe.denoise == Denoise(components=100, keep="1-4,8,10,16")
    assert recipe.output == Output("perovskite.zarr", "report/")


def test_empty_is_all_defaults():
    assert Recipe.from_toml("") == Recipe()


def test_infinite_energies_stay():
    recipe = Recipe(prepare=Prepare(energy=(-inf, inf)))
    assert "-inf" in recipe.to_toml()
    assert Recipe.from_toml(recipe.to_toml()) == recipe


REFUSED = [
    (
        "denoice = 1",
        "unknown key 'denoice'; allowed are input, prepare, denoise, lines, quantify, output",
    ),
    (
        "[denoise]\nselct = 'elbow'",
        "unknown key 'denoise.selct'; allowed are .* did you mean 'denoise.select'",
    ),
    ("denoise = 3", "'denoise' is 3, must be a table"),
    ("[denoise]\ncomponents = true", "'denoise.components' is True, must be a whole number"),
    ("[denoise]\ncomponents = 10.0", "'denoise.components' is 10.0, must be a whole number"),
    ("[denoise]\ncomponents = 'auto'", "'denoise.components' is 'auto', which is for nmf"),
    ("[denoise]\nloss = 'poisson'", "'denoise.loss' is 'poisson', which pca has no use for"),
    ("[denoise]\ndecomposition = 'nmf'\nselect = 'cnn'", "'denoise.select' is 'cnn', which judges"),
    ("[denoise]\ndecomposition = 'nmf'\nsolver = 'full'", "'denoise.solver' is 'full', which nmf"),
    (
        "[denoise]\ndecomposition = 'nmf'\ncomponents = 'auto'\nselect = 'all'",
        "'denoise.select' is 'all', which counts no components",
    ),
    (
        "[denoise]\ndecomposition = 'nmf'\ntolerance = 1",
        "'denoise.tolerance' is 1, must be a number from 0",
    ),
    (
        "[denoise]\ncomponents = '9'",
        "'denoise.components' is '9', must be a whole number, 1 or more, or 'auto'",
    ),
    ("[denoise]\ncomponents = 0", "'denoise.components' is 0, must be a whole number, 1 or more"),
    ("[denoise]\nseed = -1", "'denoise.seed' is -1, must be a whole number, 0 or more"),
    ("[denoise]\nseed = false", "'denoise.seed' is False, must be a whole number"),
    (
        "[denoise]\nkeep = [1, 2]",
        "'denoise.keep' is \\[1, 2\\], must be component numbers in quotes",
    ),
    ("[denoise]\nkeep = '1;2'", "'denoise.keep' is '1;2', must be component numbers"),
    ("[denoise]\nselect = 'x'", "'denoise.select' is 'x', must be one of "),
    ("[denoise]\nweighting = 'anscombe'", "'anscombe', must be one of poisson, none"),
    ("[denoise]\nsolver = 2", "'denoise.solver' is 2, must be one of auto"),
    ("[prepare]\nenergy = 13", "'prepare.energy' is 13, must be two numbers from low to high"),
    ("[prepare]\nenergy = [1]", "'prepare.energy' is \\[1\\], must be two numbers"),
    ("[prepare]\nenergy = [1, true]", "'prepare.energy' is \\[1, True\\], must be two numbers"),
    (
        "[prepare]\nenergy = [3, 1]",
        "'prepare.energy' is \\[3, 1\\], must be two numbers from low to high",
    ),
    (
        "[prepare]\nenergy = [nan, 1]",
        "'prepare.energy' is \\[nan, 1\\], must be two numbers from low",
    ),
    ("[prepare]\ncrop_y = [1.5, 3]", "'prepare.crop_y' is \\[1.5, 3\\], must be whole numbers"),
    ("[prepare]\ncrop_y = [1, 3.5]", "'prepare.crop_y' is \\[1, 3.5\\], must be whole numbers"),
    ("[prepare]\ncrop_x = [3, 1]", "'prepare.crop_x' is \\[3, 1\\], .* from low to high"),
    ("[prepare]\nrebin_xy = 0", "'prepare.rebin_xy' is 0, must be a whole number, 1 or more"),
    ("[input]\nfiles = 'a.bcf'", "'input.files' is 'a.bcf', must be a list .* text in quotes"),
    ("[input]\nfiles = ['a', 1]", "'input.files' is \\['a', 1\\], must be a list"),
    ("[input]\nexposure = [1, 0]", "'input.exposure' is \\[1, 0\\], must be numbers above 0"),
    ("[input]\nexposure = [nan]", "'input.exposure' is \\[nan\\], must be numbers above 0"),
    ("[input", "not valid TOML"),
    ("a = " + "[" * 3000 + "]" * 3000, "nested too deep"),
    ("[quantify]\nratios = ['I/Pb', 'I/Pb']", "'quantify.ratios' is .*, must be different ratios"),
    ('[output]\nfile = "a\\u0000"', "'output.file' is .* without null char"),
    ('[input]\nfiles = ["a\\u0000"]', "'input.files' is .* without null characters"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[text[:40] for text, _ in REFUSED])
def test_refused_with_key_value_and_what_is_allowed(text, words):
    with pytest.raises(RecipeError, match=words) as caught:
        Recipe.from_toml(text, name="a.toml")
    assert str(caught.value).startswith("a.toml: ")
    assert "\n" not in str(caught.value)


def test_checked_when_made_in_python_too():
    assert Prepare(energy=[0, 13]).energy == (0.0, 13.0)
    with pytest.raises(RecipeError, match="'denoise.select' is 'elbo', must be one of"):
        Denoise(select="elbo")
    with pytest.raises(RecipeError, match="'denoise.components' is True"):
        Denoise(components=True)


def test_from_file(tmp_path):
    path = tmp_path / "a.toml"
    with pytest.raises(RecipeError, match="a.toml: cannot be read as a recipe"):
        Recipe.from_file(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="a.toml: cannot be read as a recipe"):
        Recipe.from_file(path)
    path.write_text(Recipe(denoise=Denoise(seed=7)).to_toml())
    assert Recipe.from_file(path).denoise.seed == 7
