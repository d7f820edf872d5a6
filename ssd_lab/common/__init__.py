"""What every room may use: progress, checks of input, devices and threads, running out of memory."""
