"""Full-size models without full-size weights: small weights spread over large shapes."""
