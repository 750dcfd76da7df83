"""Score maps freed of the noise that is known: by a mixture of averages, or by one weight each."""

from edxdenoise.components.shrink import shrink
from edxdenoise.components.signal_share import weight_by_signal

__all__ = ["shrink", "weight_by_signal"]
