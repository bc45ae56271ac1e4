"""What one sees of a run: bar, trace, TensorBoard, pictures, probe, status."""
