"""The OpenAI-compatible API from the caller's side: where a server is, what it serves, and the pieces of a stream."""
