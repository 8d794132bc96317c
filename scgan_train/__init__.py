"""Train scgan models with PyTorch and export them to bundles of ONNX graphs."""
