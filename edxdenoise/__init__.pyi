from ._version import __version__
from .accessor import open
from .blocks import scheduler
from .components import neighbours, nmf, pca, select, shrink
from .config import Denoise, Input, Output, Prepare, Quantify
from .cube import make_cube, reconstruct, stack_pixels, unstack_pixels
from .errors import EdxdenoiseError, EdxdenoiseWarning
from .io import from_hyperspy, list_signals, open_dataset, read_cube, save_dataset
from .pipeline import denoise, prepare, quantify
from .preprocess import crop, rebin, stack, unstack, weight
from .quantification import LineSpec, cliff_lorimer, line_intensity
from .recipe import Recipe
from .report import write_report
from .run import convert_file, quantify_file, run_recipe
from .simulation import simulate
from .thinning import thin
from .validation import compare, residual_audit
from .xray import find_elements

__all__ = [
    "Denoise",
    "EdxdenoiseError",
    "EdxdenoiseWarning",
    "Input",
    "LineSpec",
    "Output",
    "Prepare",
    "Quantify",
    "Recipe",
    "__version__",
    "cliff_lorimer",
    "compare",
    "convert_file",
    "crop",
    "denoise",
    "find_elements",
    "from_hyperspy",
    "line_intensity",
    "list_signals",
    "make_cube",
    "neighbours",
    "nmf",
    "open",
    "open_dataset",
    "pca",
    "prepare",
    "quantify",
    "quantify_file",
    "read_cube",
    "rebin",
    "reconstruct",
    "residual_audit",
    "run_recipe",
    "save_dataset",
    "scheduler",
    "select",
    "shrink",
    "simulate",
    "stack",
    "stack_pixels",
    "thin",
    "unstack",
    "unstack_pixels",
    "weight",
    "write_report",
]
