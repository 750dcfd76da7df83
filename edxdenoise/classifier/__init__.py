"""The neural network that tells signal components from noise: inputs, networks, predictions."""

from edxdenoise.classifier.inputs import network_input
from edxdenoise.classifier.model import Classifier
from edxdenoise.classifier.networks import device_names

__all__ = ["Classifier", "device_names", "network_input"]
