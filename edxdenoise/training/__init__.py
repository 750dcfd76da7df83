"""Training of the component classifier: labels, simulated components, fitting."""
