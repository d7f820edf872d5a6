"""How the kernels' tables of measured cuts were found, on a GPU: what it prints is pasted into `ssd_lab/kernels/`."""
