"""How the embedded model is made again: corpus, tokenizer, pre-training, card."""
