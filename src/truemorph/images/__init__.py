"""Images: decoding, the central crop, and a store of pixels ready for training."""
