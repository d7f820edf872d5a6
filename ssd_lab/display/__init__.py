"""Plain pictures of a trace and tables: terminal, Markdown, HTML, SVG."""
