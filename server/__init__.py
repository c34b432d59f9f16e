"""The HTTP server: Flask over llama.cpp, in the shapes of OpenAI's API and llama-server's."""
