"""An HTTP server that speaks OpenAI's API: `ssd-lab serve`. Needs the extra `serve`."""
