"""The whole report of a machine with several devices: `ssd-lab bench multi-gpu`."""
