from ._version import __version__
from .compute import scheduler
from .cube import make_cube, stack_pixels, unstack_pixels
from .decompose import pca
from .errors import EdxdenoiseError, EdxdenoiseWarning
from .io import list_signals, open_dataset, read_cube, save_dataset
from .pipeline import convert_file, denoise, denoise_files, prepare
from .preprocess import crop, rebin, stack, thin, unstack, weight
from .recipe import Denoise, Input, Output, Prepare, Recipe
from .reconstruction import reconstruct
from .report import write_report
from .selection import select
from .simulation import simulate

__all__ = [
    "Denoise",
    "EdxdenoiseError",
    "EdxdenoiseWarning",
    "Input",
    "Output",
    "Prepare",
    "Recipe",
    "__version__",
    "convert_file",
    "crop",
    "denoise",
    "denoise_files",
    "list_signals",
    "make_cube",
    "open_dataset",
    "pca",
    "prepare",
    "read_cube",
    "rebin",
    "reconstruct",
    "save_dataset",
    "scheduler",
    "select",
    "simulate",
    "stack",
    "stack_pixels",
    "thin",
    "unstack",
    "unstack_pixels",
    "weight",
    "write_report",
]
