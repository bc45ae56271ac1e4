"""From tissue to image: relaxation, sequences, protocols, slices, artefacts."""
