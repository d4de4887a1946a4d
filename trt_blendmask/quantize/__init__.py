"""FP16 and INT8: a deployable ONNX in, a strongly typed one out."""
