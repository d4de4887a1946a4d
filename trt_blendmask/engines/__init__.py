"""Engine files: built from ONNX, with a passport beside each, and opened again."""
