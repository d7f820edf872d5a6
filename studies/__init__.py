"""How what this project ships was made: run from a checkout, tested with the rest, and no part of the package."""
