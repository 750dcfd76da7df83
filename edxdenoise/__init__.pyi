from ._version import __version__
from .accessor import open
from .audit import residual_audit
from .comparison import compare
from .components import shrink
from .compute import scheduler
from .config import Denoise, Input, Output, Prepare, Quantify
from .cube import make_cube, stack_pixels, unstack_pixels
from .decompose import neighbours, nmf, pca
from .errors import EdxdenoiseError, EdxdenoiseWarning
from .io import from_hyperspy, list_signals, open_dataset, read_cube, save_dataset
from .jobs import convert_file, quantify_file, run_recipe
from .pipeline import denoise, prepare, quantify
from .preprocess import crop, rebin, stack, thin, unstack, weight
from .quantification import LineSpec, cliff_lorimer, line_intensity
from .recipe import Recipe
from .reconstruction import reconstruct
from .report import write_report
from .selection import select
from .simulation import simulate
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
