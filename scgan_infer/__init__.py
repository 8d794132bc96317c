"""Use a trained scgan bundle with numpy and onnxruntime only: load, sample, reconstruct, encode."""
