"""The evidence: figures and the page that carries them."""
