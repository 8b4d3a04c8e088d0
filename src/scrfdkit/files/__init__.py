"""Files in and out of `scrfd detect`: the inputs, the names of their outputs, and their writers."""
