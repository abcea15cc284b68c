"""llama.cpp, through the low-level API of llama-cpp-python. Imported inside the engine process only."""
