"""Names of the methods a user can choose, in one place that imports nothing.

The command line, the recipe and the functions themselves check against these.
"""

WEIGHTINGS = ("poisson", "none")
DECOMPOSITIONS = ("pca", "nmf")
# What is kept unless somebody says otherwise, and what else may be asked for.
DEFAULT_SELECTORS = {"pca": "cnn", "nmf": "all"}
SUBSPACES = ("union", "neighbour", "pixel")
LOSSES = ("frobenius", "poisson")
INITS = ("nndsvda", "random")
SOLVERS = ("auto", "covariance", "incremental", "randomized", "full")
SELECTORS = ("cnn", "spatial", "split", "edge", "elbow", "second-elbow", "all")
PRESETS = ("solar-cell", "nanoparticles", "core-shell", "layers-gradient", "mineral")
IMAGES = ("specimen", "unrelated")
INTENSITIES = ("fit", "windows-linear", "windows")
SOURCES = ("denoised", "counts")
NETWORKS = ("default", "article")
K_FACTOR_UNITS = ("weight", "atomic")
# What may stand for a k-factor in place of a number, and the windows of a detector.
ESTIMATE = "estimate"
DETECTOR_WINDOWS = ("none", "polymer")
