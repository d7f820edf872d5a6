"""What users wait for besides rounds."""
