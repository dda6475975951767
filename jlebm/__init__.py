"""Joint latent-space energy-based priors for multi-layer generators."""

__version__ = "0.2.0"
