"""How the bundled models were made: prompts, a teacher's answers, tokenizer, target, draft, and an EAGLE3 head."""
