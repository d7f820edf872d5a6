"""What the server costs over the library, and how it behaves with many clients: `python -m studies.serving`."""
