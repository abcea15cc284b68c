"""Makes an ONNX folder of a GGUF file or of a Hugging Face folder, with numpy and `onnx` alone."""
