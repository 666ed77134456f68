"""The loader, one training loop and the papers' models. Nothing is here yet; it builds on ``fitting``."""
