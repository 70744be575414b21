"""What is said to the model: templates, their pieces, tokens, and what lives inside a tokenizer."""
