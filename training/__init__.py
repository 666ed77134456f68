"""The loader, one training loop and the papers' models. It builds on ``fitting``."""
