"""Gold labels: which galaxies to label, labelling them at a local page, and bringing the answers into a catalogue."""
