"""Images: decoding, cropping, and storing pixels for training."""
