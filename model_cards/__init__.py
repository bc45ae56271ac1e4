"""Published models: card, configuration, weights of the embedded default."""
