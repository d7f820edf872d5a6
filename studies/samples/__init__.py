"""The samples of data sets that come with the package."""
