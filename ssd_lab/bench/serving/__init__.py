"""Load on any OpenAI-compatible server: open and closed loops, what each request took, several servers side by side."""
