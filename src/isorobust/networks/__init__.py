"""Networks from pixels to logits, their stacks over seeds, and their files."""
