"""Reading and writing files; nothing here decides anything about the data."""

from edxdenoise.io.atomic import atomic_output, check_apart, check_output
from edxdenoise.io.export import (
    PixelSize,
    file_name,
    pixel_size,
    write_msa,
    write_table,
    write_tiff,
)
from edxdenoise.io.hyperspy import from_hyperspy, to_hyperspy
from edxdenoise.io.images import read_mask
from edxdenoise.io.metadata import file_source
from edxdenoise.io.own import open_dataset, open_denoised
from edxdenoise.io.read import chosen_frames, frame_events, holds_frames, read_cube, read_spectra
from edxdenoise.io.regions import check_profile, check_region, profile_steps, read_regions
from edxdenoise.io.save import check_save, rounded_for_storage, save_dataset, stored_size
from edxdenoise.io.signals import SignalInfo, list_signals, pick_signal

__all__ = [
    "PixelSize",
    "SignalInfo",
    "atomic_output",
    "check_apart",
    "check_output",
    "check_profile",
    "check_region",
    "check_save",
    "chosen_frames",
    "file_name",
    "file_source",
    "frame_events",
    "from_hyperspy",
    "holds_frames",
    "list_signals",
    "open_dataset",
    "open_denoised",
    "pick_signal",
    "pixel_size",
    "profile_steps",
    "read_cube",
    "read_mask",
    "read_regions",
    "read_spectra",
    "rounded_for_storage",
    "save_dataset",
    "stored_size",
    "to_hyperspy",
    "write_msa",
    "write_table",
    "write_tiff",
]
