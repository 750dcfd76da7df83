from ._version import __version__
from .accessor import open
from .components import nmf, pca, select
from .cube import make_cube, reconstruct
from .errors import EdxdenoiseError, EdxdenoiseWarning
from .io import from_hyperspy, list_signals, save_dataset
from .pipeline import denoise, quantify
from .preprocess import crop, rebin, stack, weight
from .quantification import LineSpec
from .recipe import Recipe
from .report import write_report
from .run import run_recipe
from .simulation import simulate
from .validation import compare
from .xray import find_elements

__all__ = [
    "EdxdenoiseError",
    "EdxdenoiseWarning",
    "LineSpec",
    "Recipe",
    "__version__",
    "compare",
    "crop",
    "denoise",
    "find_elements",
    "from_hyperspy",
    "list_signals",
    "make_cube",
    "nmf",
    "open",
    "pca",
    "quantify",
    "rebin",
    "reconstruct",
    "run_recipe",
    "save_dataset",
    "select",
    "simulate",
    "stack",
    "weight",
    "write_report",
]
