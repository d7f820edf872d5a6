"""Making the bundled models: prompts, teacher, tokenizer, target, drafts, and how they are measured."""
