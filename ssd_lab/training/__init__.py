"""Training what drafts, for any target: its own answers, a small draft or an EAGLE3 head, and how well they guess."""
