"""ONNX folders on onnxruntime: graphs as onnxruntime-genai's builder makes them. Imported inside the engine process only."""
